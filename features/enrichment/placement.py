"""Where the rendered features go.

What the prompts of many entities share must come first: a KV block can be shared only if all that
is before it is the same. So the default puts the features after the system prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Placement = Literal["after_system", "before_system", "last_user"]
_SYSTEM = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Edit:
    """Change message ``index``: put the text behind or before its content, or as a system message
    in front of it."""

    index: int
    kind: Literal["append", "prepend", "insert"]


def place(roles: Sequence[str], placement: Placement) -> Edit:
    """Where text goes in a conversation, given its messages' roles.

    ``after_system``: behind the last of the system messages at the head. ``before_system``: before
    the first of them. ``last_user``: before the last question. Without a system message the text
    becomes one; without a question ``last_user`` is ``after_system``.
    """
    head = 0
    while head < len(roles) and roles[head] in _SYSTEM:
        head += 1
    if placement == "last_user":
        for index in range(len(roles) - 1, -1, -1):
            if roles[index] == "user":
                return Edit(index, "prepend")
    if head == 0:
        return Edit(0, "insert")
    return Edit(0, "prepend") if placement == "before_system" else Edit(head - 1, "append")


def join(kind: Literal["append", "prepend"], content: str, text: str) -> str:
    """Both, each on lines of its own."""
    return f"{content}\n{text}" if kind == "append" else f"{text}\n{content}"
