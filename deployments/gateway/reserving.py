"""An attempt's reservation: before it begins, or while it has begun already.

A tenant whose bounds are near has what an attempt may use reserved before the attempt is queued.
One that is far from all its bounds need not wait for Redis' answer: its attempt is queued and sent
to a replica at once, and shows nothing until the answer is there. It is all but sure to be granted;
if it is not, the attempt is broken off, and what a replica has computed by then is the platform's
loss. So the bounds hold exactly as before, and a tenant that is over one can have at most as much
computed for nothing as goes out within one round trip to Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from deployments.gateway.accounts import Charge, Most, Tab
from deployments.gateway.legs import Attempt
from weir.errors import WeirError


@asynccontextmanager
async def reserved(
    attempt: Attempt,
    tab: Tab,
    most: Most,
    family: str,
    committed: Callable[[], bool],
    clock: Callable[[], float],
) -> AsyncIterator[None]:
    """The attempt's reservation. It is replaced by what was used when the request has ended and it
    is known what its tenant pays for; an attempt that failed before the client was sent anything of
    it (``committed``) is given back at once, so that the next one can be reserved. ``family``:
    whose headers the client gets; ``clock``: the loop's.

    Raises:
        WeirError: the tenant may not use so much.
    """
    try:
        if tab.ample(most):
            async with _meanwhile(attempt, tab, most, family, clock):
                yield
        else:
            attempt.charge, attempt.reserved_s = await tab.reserve(most), clock()
            yield
    except WeirError:
        if attempt.charge is not None and not committed():
            attempt.charge.give_back()
        raise


@asynccontextmanager
async def _meanwhile(
    attempt: Attempt, tab: Tab, most: Most, family: str, clock: Callable[[], float]
) -> AsyncIterator[None]:
    """Reserve while the attempt is under way. At the end the answer is known, also where the client
    has left: whatever was computed is settled like the rest."""
    granted = attempt.granted = asyncio.Event()
    running = asyncio.timeout(None)
    broken_off = False

    def answered(task: asyncio.Task[Charge]) -> None:
        nonlocal broken_off
        if task.cancelled():
            return
        if task.exception() is None:
            if attempt.charge is None:
                attempt.charge, attempt.reserved_s = task.result(), clock()
                granted.set()
                tab.headers(family)  # made now, while the replica computes, and kept
        elif not ended:
            broken_off = True
            running.reschedule(clock())

    ended = False
    task = tab.reserve_soon(most)
    task.add_done_callback(answered)
    try:
        async with running:
            yield
    except TimeoutError:
        if not broken_off:
            raise
    finally:
        ended = True
        await _answer(task)
        answered(task)  # the call of it may be still to come
    if broken_off:
        task.result()


async def _answer(task: asyncio.Task[Charge]) -> None:
    """Wait for the account's answer; it comes within ``accounts.timeout_ms``."""
    if task.done():
        return
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        raise
