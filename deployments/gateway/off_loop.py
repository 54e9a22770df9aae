"""Work whose length grows with a request runs beside the event loop when the request is long.

While the loop's own thread runs a long function, every stream of the gateway waits. Tokenizing as
``PromptEncoder`` does it releases the interpreter's lock: 2 MiB take about a second, and the loop
then waits 84 ms at most, while the ids become Python's numbers. Rendering a template and checking a
body hold the lock, and a thread lets the loop in every few milliseconds; one message of 4 MiB
renders in half a millisecond, 4 MiB in 20,000 messages in 0.3 s. (Measured on two cores with the
teacher's tokenizer, which makes a token of about two characters.)
"""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from weir.errors import OverloadedError, RateLimitError, WeirError

ResultT = TypeVar("ResultT")

#: Texts below this many characters are tokenized in about a millisecond.
INLINE_BELOW = 4 * 1024
_LONGEST_PAUSE_S = 5.0
#: What it takes the front door and the gateway to receive a byte of a long body.
_RECEIVED_S_PER_BYTE = 10e-9


@dataclass(frozen=True, slots=True)
class OffLoopLimits:
    """``inline_below``: what is smaller runs at once, in the loop's thread. ``threads``: calls that
    run at a time; a tenant's own leave one of several threads to others. ``places`` and
    ``tenant_places``: calls that run or wait, of all tenants and of one. ``limit_s``: the time that
    one may wait and run. ``penance``: a call that ends in a refusal keeps its tenant's next ones
    waiting for so many times what it cost."""

    inline_below: int = INLINE_BELOW
    threads: int = 2
    places: int = 128
    tenant_places: int = 32
    limit_s: float = 30.0
    penance: float = 19.0


@dataclass(slots=True, eq=False)
class _Call:
    tenant: str
    size: int
    function: Callable[[], Any]
    done: asyncio.Future[Any]
    begun: bool = False
    begun_s: float = 0.0


class OffLoop:
    """Runs functions inline when they are short, else in ``executor``. Tenants take turns: each has
    a line of its own, and the one whose turn was longest ago is next."""

    def __init__(self, executor: Executor, limits: OffLoopLimits | None = None) -> None:
        self._executor = executor
        self._limits = limits or OffLoopLimits()
        self._share = max(1, self._limits.threads - 1)
        self._lines: OrderedDict[str, deque[_Call]] = OrderedDict()
        self._held: dict[str, int] = {}
        self._running: dict[str, int] = {}
        self._free_s: dict[str, float] = {}  # on the loop's clock: when a tenant's penance ends

    @property
    def in_use(self) -> int:
        """Calls that run or wait."""
        return sum(self._held.values())

    async def run(self, tenant: str, size: int, function: Callable[[], ResultT]) -> ResultT:
        """``function()``; ``size`` says how long it may take (bytes, characters of text, or so).

        A cancelled call that waits is never run. One that runs goes on to its end, because a
        thread cannot be stopped, and keeps its place until then.

        Raises:
            RateLimitError: too many long requests of the tenant wait.
            OverloadedError: too many of all tenants do, or this one took too long.
        """
        if size < self._limits.inline_below:
            return function()
        call = self._enter(tenant, size, function)
        try:
            async with asyncio.timeout(self._limits.limit_s):
                result: ResultT = await call.done
                return result
        except TimeoutError:
            raise OverloadedError("Reading the prompt took too long.", retry_after_s=1.0) from None
        finally:
            if not call.begun:
                self._lines[tenant].remove(call)
                self._leave(tenant)

    def _enter(self, tenant: str, size: int, function: Callable[[], Any]) -> _Call:
        if self._held.get(tenant, 0) >= self._limits.tenant_places:
            raise RateLimitError("Too many of your long prompts are being read.", retry_after_s=1.0)
        if self.in_use >= self._limits.places:
            raise OverloadedError("Too many long prompts are being read.", retry_after_s=1.0)
        call = _Call(tenant, size, function, asyncio.get_running_loop().create_future())
        self._held[tenant] = self._held.get(tenant, 0) + 1
        self._lines.setdefault(tenant, deque()).append(call)
        self._begin_next()
        return call

    def _begin_next(self) -> None:
        if sum(self._running.values()) >= self._limits.threads:
            return
        for tenant, line in self._lines.items():
            held_up = tenant in self._free_s or self._running.get(tenant, 0) >= self._share
            if line and not held_up:
                self._lines.move_to_end(tenant)
                self._begin(line.popleft())
                return

    def _begin(self, call: _Call) -> None:
        loop = asyncio.get_running_loop()
        call.begun, call.begun_s = True, loop.time()
        self._running[call.tenant] = self._running.get(call.tenant, 0) + 1
        work = loop.run_in_executor(self._executor, call.function)
        work.add_done_callback(functools.partial(self._ended, call))

    def _ended(self, call: _Call, work: asyncio.Future[Any]) -> None:
        self._running[call.tenant] -= 1
        self._leave(call.tenant)
        error = None if work.cancelled() else work.exception()
        if isinstance(error, WeirError) and error.status < 500:
            self._punish(call)
        if call.done.done():
            pass  # nobody waits any more
        elif work.cancelled():
            call.done.cancel()
        elif error is not None:
            call.done.set_exception(error)
        else:
            call.done.set_result(work.result())
        self._begin_next()

    def _punish(self, call: _Call) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        cost_s = now_s - call.begun_s + call.size * _RECEIVED_S_PER_BYTE
        pause_s = min(self._limits.penance * cost_s, _LONGEST_PAUSE_S)
        free_s = max(self._free_s.get(call.tenant, 0.0), now_s + pause_s)
        self._free_s[call.tenant] = free_s
        loop.call_later(free_s - now_s, self._forgive, call.tenant, free_s)

    def _forgive(self, tenant: str, free_s: float) -> None:
        # The last one's, if there were several. The clock is not asked: timers may be early.
        if self._free_s.get(tenant) == free_s:
            del self._free_s[tenant]
            self._begin_next()

    def _leave(self, tenant: str) -> None:
        self._held[tenant] -= 1
        if not self._held[tenant]:
            for table in (self._held, self._running, self._lines):
                table.pop(tenant, None)
