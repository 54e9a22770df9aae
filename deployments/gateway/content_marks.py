"""Marks in what a client sent, wherever a control token would begin in it.

A template prints a marked conversation like any other. In its output, a control token without a
mark is the template's own, whatever the template joined, trimmed or wrote as JSON. Most
conversations have nothing to mark, and looking for it is one search per string.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import orjson

from deployments.gateway.chat_templates import ChatTemplate, Message
from deployments.gateway.control_tokens import MARK, ControlTokens, alternatives, one_of

#: Fields of an assistant's turn that may have the model's own markup.
_SAID = frozenset({"content", "reasoning", "reasoning_content", "thinking"})


class _Finder:
    """Finds in a text of the client where one of the control tokens ``texts`` begins, or could
    begin together with what the template prints beside it."""

    def __init__(self, texts: frozenset[str], kept: frozenset[str], template: ChatTemplate) -> None:
        firsts = {text[0] for text in texts}
        self._rewrites = template.rewrites
        self._firsts = tuple(firsts | {c.swapcase() for c in firsts} if self._rewrites else firsts)
        self._whole = one_of(texts)
        self._beginnings = frozenset(text[:n] for text in texts for n in range(1, len(text)))
        self._longest = max(map(len, texts), default=0)
        # Text of the template that ends in the beginning of a token, which the client could finish.
        ends = {literal[-n:] for literal in template.literals for n in range(1, self._longest)}
        rests = {text[len(end) :] for end in ends for text in texts if text.startswith(end)} - {""}
        self._rest = one_of(rests) if rests else None
        self._rests = frozenset(rest[:n] for rest in rests for n in range(1, len(rest)))
        names = {k for k in kept if len(k) > 1 and k[0] in self._firsts} - self._beginnings
        unmarked = f"(?!(?!{alternatives(texts)})(?:{alternatives(names)}))" if names else ""
        any_first = f"[{''.join(map(re.escape, self._firsts))}]" if texts else "(?!)"
        self._marked = re.compile(unmarked + any_first)

    def touches(self, text: str) -> bool:
        """Whether there is anything to mark."""
        for first in self._firsts:
            if first in text:
                if self._rewrites or self._whole.search(text) or self._breaks_off(text) >= 0:
                    return True
                break
        return self._rest is not None and self._finishes(text)

    def cannot_touch(self, joined: str) -> bool:
        """Whether there is nothing to mark in any of several texts, given as JSON."""
        return self._rest is None and not any(first in joined for first in self._firsts)

    def mark(self, text: str) -> str:
        """The text with marks that are taken out again."""
        marked = self._marked.sub(rf"\g<0>{MARK}", text.replace(MARK, MARK + MARK))
        return _behind_spaces(marked, MARK) if self._finishes(text) else marked

    def break_up(self, text: str, between: str) -> str:
        """The text with ``between`` in each control token, and nowhere else if it can be."""
        if self._rewrites:
            broken = self._marked.sub(rf"\g<0>{between}", text)
        else:
            cut = self._breaks_off(text)
            if cut >= 0:
                text = text[: cut + 1] + between + text[cut + 1 :]
            broken = self._begun.sub(rf"\g<0>{between}", text)
        return _behind_spaces(broken, between) if self._finishes(text) else broken

    @cached_property
    def _begun(self) -> re.Pattern[str]:
        return re.compile(f"(?s)(?={self._whole.pattern}).")

    def _breaks_off(self, text: str) -> int:
        """Where the beginning of a token begins with which the text ends; -1: it does not."""
        end = len(text.rstrip())
        for place in range(max(0, end - self._longest), end):
            if text[place] in self._firsts and text[place:end] in self._beginnings:
                return place
        return -1

    def _finishes(self, text: str) -> bool:
        if self._rest is None:
            return False
        begun = text[: self._longest].lstrip() or text.lstrip()[: self._longest]
        return self._rest.match(begun) is not None or begun.rstrip() in self._rests


def _behind_spaces(text: str, inserted: str) -> str:
    start = len(text) - len(text.lstrip())
    return text[:start] + inserted + text[start:]


class ContentMarks:
    """Of one model's control tokens and one of its chat templates.

    All that a client sends is the client's: every turn (an assistant's too), names, ids, tools with
    their keys, documents, arguments of the template. A role is not, because there are six. A text
    of the template's own, which it looks for in what it prints, is left as it is unless it is a
    control token.
    """

    def __init__(self, control: ControlTokens, template: ChatTemplate) -> None:
        self._normalizer = control.normalizer
        self._given = _Finder(control.texts, template.constants, template)
        self._said = _Finder(
            control.texts - control.markup, template.constants | control.markup, template
        )

    def needed(self, messages: Sequence[Message], *others: Any) -> bool:
        """Whether a control token's text is in ``messages`` (as the template takes them) or in
        ``others``, or could come about."""
        for message in messages:
            for name, value in message.items():
                if name != "role" and self._has(value, self._finder(message, name)):
                    return True
        return any(not self._clean(value) and self._has(value, self._given) for value in others)

    def mark_messages(self, messages: Sequence[Message]) -> list[Message]:
        """The same messages with marks."""
        return [self._each_message(message, _Finder.mark) for message in messages]

    def mark(self, value: Any) -> Any:
        """The same value (JSON's kinds) with marks, in keys too."""
        return _each_text(value, self._given.mark)

    def break_up(self, message: Mapping[str, Any], between: str) -> Message:
        """A message with ``between`` in each control token's text."""
        return self._each_message(message, lambda finder, text: finder.break_up(text, between))

    def break_up_value(self, value: Any, between: str) -> Any:
        """A value of JSON's kinds with ``between`` in each control token's text."""
        return _each_text(value, lambda text: self._given.break_up(text, between))

    def _each_message(
        self, message: Mapping[str, Any], change: Callable[[_Finder, str], str]
    ) -> Message:
        changed: Message = {}
        for name, value in message.items():
            finder = self._finder(message, name)
            changed[name] = value if name == "role" else _each_text(value, partial(change, finder))
        return changed

    def _finder(self, message: Mapping[str, Any], field: str) -> _Finder:
        said = message["role"] == "assistant" and field in _SAID
        return self._said if said else self._given

    def _clean(self, value: Any) -> bool:
        """Whether it is certain, at a small price, that there is nothing to mark in a value."""
        if not value:
            return True
        if self._normalizer is not None:
            return False
        try:
            return self._given.cannot_touch(orjson.dumps(value).decode())
        except TypeError:  # no JSON, such as a number of more than 64 bits
            return False

    def _has(self, value: Any, finder: _Finder) -> bool:
        waiting = [value]
        while waiting:
            each = waiting.pop()
            if isinstance(each, str):
                if finder.touches(each) or (self._normalizer and self._hides(each, finder)):
                    return True
            elif isinstance(each, dict):
                waiting += each
                waiting += each.values()
            elif isinstance(each, list):
                waiting += each
        return False

    def _hides(self, text: str, finder: _Finder) -> bool:
        assert self._normalizer is not None
        try:
            return finder.touches(self._normalizer.normalize_str(text))
        except UnicodeEncodeError:
            return False  # half of a surrogate pair: refused where it is encoded


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_each_text(k, change): _each_text(v, change) for k, v in value.items()}
    if isinstance(value, list):
        return [_each_text(each, change) for each in value]
    return value
