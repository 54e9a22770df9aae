"""Requests for a model that sleeps: held until a replica is up, and seen as demand meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from router.admission.arrivals import Waits
from router.router import Router
from weir.errors import OverloadedError

#: Nobody knows how long a prompt is before a replica has said what it can take.
_BYTES_PER_TOKEN = 4.0
_MOST_HELD = 4096
_EXPECTED_OUTPUT_TOKENS = 128.0
#: What is answered elsewhere is asked for, too; so long it is told.
_REMEMBERED_S = 10.0


class Waking:
    """Of one model. ``hold_s``: so long a request waits (0: not at all)."""

    def __init__(self, router: Router, clock: Callable[[], float], hold_s: float) -> None:
        self._router = router
        self._clock = clock
        self._hold_s = hold_s
        self._held: dict[object, tuple[str, int, float]] = {}
        self._asked: dict[str, float] = {}
        self._changed = asyncio.Event()
        router.listeners.append(self._members_changed)

    @property
    def sleeps(self) -> bool:
        """Whether there is no replica."""
        return not self._router.members

    def asked(self, priority_class: str) -> None:
        """A request came for a model that sleeps, and is answered elsewhere."""
        self._asked[priority_class] = self._clock()

    async def wait(self, priority_class: str, body_bytes: int) -> None:
        """Hold a request until there is a replica, or for as long as it is held.

        Raises:
            OverloadedError: too many are held.
        """
        if not self._hold_s:
            return
        if len(self._held) >= _MOST_HELD:
            raise OverloadedError("Too many requests wait for this model.", retry_after_s=10.0)
        token, until_s = object(), self._clock() + self._hold_s
        self._held[token] = (priority_class, body_bytes, self._clock())
        try:
            async with asyncio.timeout_at(until_s):
                while self.sleeps:
                    await self._changed.wait()
        except TimeoutError:
            return
        finally:
            del self._held[token]

    def waiting_work(self) -> dict[str, Waits]:
        """What is held, by class; and what would be, were it not answered elsewhere."""
        found: dict[str, Waits] = {}
        for name, body_bytes, since_s in self._held.values():
            waits = found.setdefault(name, Waits())
            waits.requests += 1
            waits.computed_tokens += body_bytes / _BYTES_PER_TOKEN
            waits.output_tokens += _EXPECTED_OUTPUT_TOKENS
            waits.since_s = min(waits.since_s, since_s)
        now_s = self._clock()
        for name, at_s in self._asked.items():
            if self.sleeps and now_s - at_s < _REMEMBERED_S and name not in found:
                found[name] = Waits(1, _EXPECTED_OUTPUT_TOKENS, _EXPECTED_OUTPUT_TOKENS, at_s)
        return found

    def _members_changed(self, *_: object) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
