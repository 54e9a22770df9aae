"""Lists come in pages. A cursor says after which entry the next page begins; it holds for as long
as the entries keep their order, whatever is added or removed meanwhile."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from weir.errors import BadRequestError

Item = TypeVar("Item")
Place = str | int
MOST = 200
_DEFAULT = 50
_MOST_CURSOR_CHARS = 1024


class Page(BaseModel, Generic[Item]):
    """One page. ``next`` is the ``after`` of the next one; null on the last."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    next: str | None = Field(None, description="The `after` of the next page.")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which page is asked for. ``after``: the place of the last entry of the page before."""

    limit: int
    after: tuple[Place, ...] | None


def wanted(
    limit: int = Query(_DEFAULT, ge=1, le=MOST, description="Entries of a page."),
    after: str | None = Query(
        None, max_length=_MOST_CURSOR_CHARS, description="`next` of the page before."
    ),
) -> Wanted:
    """FastAPI's dependency.

    Raises:
        BadRequestError: ``after`` is no cursor.
    """
    return Wanted(limit, None if after is None else parse_cursor(after))


def page(
    found: Sequence[Item], asked: Wanted, place: Callable[[Item], tuple[Place, ...]]
) -> Page[Item]:
    """``found``: in order, after ``asked.after``, one more than ``asked.limit`` if there is one."""
    shown = list(found[: asked.limit])
    more = len(found) > asked.limit
    return Page[Item](
        data=shown, has_more=more, next=cursor(place(shown[-1])) if more and shown else None
    )


def cursor(place: tuple[Place, ...]) -> str:
    """A place as text that clients need not understand."""
    text = json.dumps(place, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parse_cursor(text: str) -> tuple[Place, ...]:
    """The place.

    Raises:
        BadRequestError: it is no cursor.
    """
    try:
        padded = text + "=" * (-len(text) % 4)
        place = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _no_cursor() from None
    if not isinstance(place, list) or not place:
        raise _no_cursor()
    for each in place:
        if isinstance(each, bool) or not isinstance(each, str | int):
            raise _no_cursor()
        if isinstance(each, int) and not 0 <= each < 1 << 62:
            raise _no_cursor()
    return tuple(place)


def place_of(asked: Wanted, *kinds: type) -> tuple[Place, ...] | None:
    """The place that is asked for, if its parts are of these kinds.

    Raises:
        BadRequestError: they are not: the cursor is of another list.
    """
    if asked.after is None:
        return None
    if len(asked.after) != len(kinds) or any(
        not isinstance(part, kind) for part, kind in zip(asked.after, kinds, strict=True)
    ):
        raise _no_cursor()
    return asked.after


def _no_cursor() -> BadRequestError:
    return BadRequestError("after: not the `next` of a page of this list.", param="after")
