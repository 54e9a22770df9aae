"""Bugs to be planted, one at a time, so that it is known that the schedules find such."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from deployments import wire
from deployments.gateway.accounts import Tab
from deployments.gateway.connection import ReplicaConnection, TokenStream
from deployments.gateway.fleet import Fleet
from deployments.gateway.legs import Choice
from deployments.gateway.outputs import Counts
from deployments.gateway.pulse import Pulse
from router.admission.ticket import Ticket
from router.ledger import Reservation

Plant = Callable[[], AbstractContextManager[Any]]


def short_resume() -> AbstractContextManager[Any]:
    """A stream that moves is resumed one token short."""
    whole = Choice.submission

    def short(self: Choice) -> wire.Submit | wire.Embed:
        asked = whole(self)
        if isinstance(asked, wire.Embed) or asked.resume is None:
            return asked
        resume = msgspec.structs.replace(asked.resume, tokens=asked.resume.tokens[:-1])
        return msgspec.structs.replace(asked, resume=resume)

    return patch.object(Choice, "submission", short)


def kept_ticket() -> AbstractContextManager[Any]:
    """A request that is cancelled keeps its place."""
    close = Ticket.close

    def forget(self: Ticket, complete: bool = False) -> None:
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            close(self, complete)

    return patch.object(Ticket, "close", forget)


def double_count() -> AbstractContextManager[Any]:
    """After a move, the tokens of the first replica are counted twice."""
    counts: Any = Choice.__dict__["counts"].fget

    def twice(self: Choice) -> Counts:
        right: Counts = counts(self)
        again = len(self.legs[0].tokens) if len(self.legs) > 1 else 0
        return Counts(right.prompt_tokens, right.cached_tokens, right.output_tokens + again)

    return patch.object(Choice, "counts", property(twice))


def unnoticed_freeze() -> AbstractContextManager[Any]:
    """Silence is never a failure."""
    return patch.object(Pulse, "overdue", lambda self, now_s: False)


def fed_twice() -> AbstractContextManager[Any]:
    """Some output reaches its stream twice."""
    feed = TokenStream.feed

    def again(self: TokenStream, item: Any) -> None:
        feed(self, item)
        if isinstance(item, wire.Chunk) and item.tokens and item.tokens[0] % 50 == 0:
            feed(self, item)

    return patch.object(TokenStream, "feed", again)


@contextmanager
def kept_reservation() -> Iterator[None]:
    """A stream that moves stays in the ledger where it was."""

    def move(self: Ticket, exclude: Any, *told: Any) -> Reservation:
        self.grant = self._issuer.router.choose(self.request, exclude)
        return self.grant

    with patch.object(Ticket, "move", move):
        yield


def silent_leaving() -> AbstractContextManager[Any]:
    """A replica is not told that nobody reads a stream any more."""

    def forget(self: ReplicaConnection, number: int) -> None:
        self._streams.pop(number, None)

    return patch.object(ReplicaConnection, "cancel", forget)


def kept_account() -> AbstractContextManager[Any]:
    """What a request has reserved of its tenant's quotas stays reserved if nothing is paid."""
    close = Tab.close

    def forget(self: Tab, paid: Iterable[Any], counts: bool) -> None:
        listed = list(paid)
        if listed:
            close(self, listed, counts)

    return patch.object(Tab, "close", forget)


def orphans_forgotten() -> AbstractContextManager[Any]:
    """What a replica owes the ledger when its connection broke is not booked."""
    return patch.object(Fleet, "heard_owed", lambda self, connection, owed: None)


#: Each bug with the rules of :mod:`load_tests.faults.checks` that may find it.
PLANTED: Mapping[str, tuple[Plant, frozenset[str]]] = {
    "resumed one token short": (short_resume, frozenset({"text", "bill"})),
    "ticket not closed on cancel": (kept_ticket, frozenset({"reservations"})),
    "counted twice after a move": (double_count, frozenset({"bill"})),
    "freeze never noticed": (unnoticed_freeze, frozenset({"ends"})),
    "counts of a broken connection forgotten": (orphans_forgotten, frozenset({"reservations"})),
    "stream fed twice": (fed_twice, frozenset({"text", "bill", "reservations"})),
    "replica not told that a client left": (silent_leaving, frozenset({"reservations"})),
    "reservation kept after a move": (kept_reservation, frozenset({"reservations"})),
    "quota kept after a failure": (kept_account, frozenset({"reservations"})),
}
