"""What one gateway does for batches: it takes on chunks as far as the platform has room, validates
new batches and puts together those that have ended, and looks twice a second at what has become of
its work, if it has any."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from deployments.batches.computing import ChunkRun, Computing
from deployments.batches.files import FileTable
from deployments.batches.finishing import Finisher
from deployments.batches.jobs import Batch, BatchTable
from deployments.batches.life import Status
from deployments.batches.outage import Outage
from deployments.batches.recorder import NotTakenError
from deployments.batches.validating import LineLimits, Validation
from deployments.batches.work import Claim, WorkTable
from weir.errors import ConflictError, NotFoundError, OverloadedError
from weir.logs import stack_of
from weir.tenancy import Caller

_LOG = logging.getLogger("weir.batches")
_POLL_S = 0.5
#: A gateway that has held nothing for two leases looks so often for what others left to it. What it
#: is asked for itself, it sees at once.
_IDLE_POLL_S = 2.0
#: Chunks that a gateway holds; of most of them the last lines are under way.
_MOST_CHUNKS = 64
#: Batches that a gateway validates or puts together at a time.
_MOST_BATCHES = 2
_SWEEP_S = 60.0
_CLOSE_S = 10.0
#: A gateway that no client has asked anything for so long is a standby, as far as batches go.
_STANDBY_AFTER_S = 30.0
#: A standby takes on lines only if nobody else has done so for that long.
STANDBY_WAIT_S = 3.0

FindCaller = Callable[[str, str], Caller | None]
"""The caller of a tenant and key, by their ids; None: it may no longer ask for anything."""


@dataclass(frozen=True, slots=True)
class Running:
    """What a gateway needs for batches. ``traffic``: how many requests clients have sent it so far;
    ``wall_clock``: seconds since the epoch."""

    computing: Computing
    work: WorkTable
    batches: BatchTable
    files: FileTable
    finisher: Finisher
    limits: LineLimits
    find_caller: FindCaller
    traffic: Callable[[], int]
    wall_clock: Callable[[], float]


class Runner:
    """Needs a running event loop."""

    def __init__(self, running: Running) -> None:
        self._with = running
        self._run_in = running.computing.threads.run
        self._clock = asyncio.get_running_loop().time
        self._wake = asyncio.Event()
        self._chunks: dict[tuple[int, int], tuple[ChunkRun, asyncio.Task[None]]] = {}
        self._batches: dict[int, tuple[Batch, asyncio.Task[None]]] = {}
        self._always: list[asyncio.Task[None]] = []
        self._swept_s = self._renewed_s = self._clock()
        self._held_s = -math.inf
        self._closing = False
        self._standby = _Standby(running.traffic, self._clock())
        self._away = Outage("batches cannot be looked after")
        self._unpublished = Outage("results of batches cannot be published")

    def start(self) -> None:
        """Work until :meth:`aclose`."""
        loop = asyncio.get_running_loop()
        self._always = [
            loop.create_task(self._work()),
            loop.create_task(self._publish()),
        ]

    def wake(self) -> None:
        """There may be something new to do."""
        self._wake.set()

    async def aclose(self) -> None:
        """Drop the lines that are under way, publish what is computed, let go of everything."""
        if not self._always:
            return
        self._closing = True
        self.wake()
        # A claim that is under way in a thread is waited for: nobody else would let go of it.
        await asyncio.wait(self._always[:1], timeout=_CLOSE_S)
        for task in self._always:
            task.cancel()
        await asyncio.gather(*self._always, return_exceptions=True)
        tasks = [task for _, task in (*self._chunks.values(), *self._batches.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(OverloadedError):
            await self._with.computing.recorder.flush()

    async def _work(self) -> None:
        while not self._closing:
            self._wake.clear()
            await self._tried(self._look(), self._away)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._pause_s())

    def _pause_s(self) -> float:
        """Until the next look. What broke off here is free again when its lease is over."""
        now_s = self._clock()
        if self._chunks or self._batches:
            self._held_s = now_s
        lately = now_s - self._held_s < 2.0 * self._with.work.lease_s
        return _POLL_S if lately else _IDLE_POLL_S

    async def _publish(self) -> None:
        recorder = self._with.computing.recorder
        while True:
            await recorder.wait()
            await self._tried(recorder.flush(), self._unpublished)

    async def _tried(self, work: Coroutine[Any, Any, None], outage: Outage, **told: str) -> None:
        """Do some work; what goes wrong is told, and does not end the runner."""
        try:
            await work
            outage.over()
        except OverloadedError as error:
            outage.begin(error)
        except Exception as error:  # noqa: BLE001 - the edge of what runs in the background
            _LOG.error("work on batches failed: %s", stack_of(error), extra=told)

    async def _look(self) -> None:
        """One round."""
        if self._chunks or self._batches:
            await self._keep()
        if self._clock() - self._swept_s >= _SWEEP_S:
            self._swept_s = self._clock()
            await self._sweep()
        while self._wants_batches() and await self._take_batch():
            pass
        while self._wants_lines() and await self._take_chunk():
            pass

    async def _keep(self) -> None:
        """Hold on to what is worked on here, and stop what is no longer to be worked on."""
        work, now_s = self._with.work, self._now_s()
        if self._clock() - self._renewed_s >= work.lease_s / 4:
            self._renewed_s = self._clock()
            held = await self._run_in(work.renew, now_s, list(self._batches), list(self._chunks))
        else:
            held = await self._run_in(work.held, now_s)
        leased = await self._run_in(work.leased)
        for (batch, chunk), (run, task) in list(self._chunks.items()):
            if chunk not in held.get(batch, ()):
                task.cancel()
            elif self._caller(run.batch) is None:
                await self._cancel(run.batch)
        for number, (begun, task) in list(self._batches.items()):
            if leased.get(number) is not begun.status:
                task.cancel()

    async def _sweep(self) -> None:
        for file in await self._run_in(self._with.files.drop_expired, self._now_s()):
            await self._run_in(self._with.computing.storage.remove, file.path)
        ttl_s = self._with.finisher.ttl_s
        await self._run_in(self._with.batches.drop_old, self._now_s(), ttl_s)

    async def _take_batch(self) -> bool:
        batch = await self._run_in(self._with.work.claim_batch, self._now_s())
        if batch is None or batch.number in self._batches:
            return False
        task = self._begin(self._batch(batch), batch)
        self._batches[batch.number] = (batch, task)
        task.add_done_callback(lambda _: self._batches.pop(batch.number))
        return True

    def _wants_batches(self) -> bool:
        return len(self._batches) < _MOST_BATCHES and not self._closing

    def _wants_lines(self) -> bool:
        """Whether there is more room than lines that are held and not begun."""
        if self._closing:
            return False
        left = sum(run.left for run, _ in self._chunks.values())
        return left < self._with.computing.window.room and len(self._chunks) < _MOST_CHUNKS

    async def _take_chunk(self) -> bool:
        outlook = await self._run_in(self._with.work.outlook, self._now_s())
        if not self._standby.may_take(outlook.free, outlook.elsewhere, self._clock()):
            return False
        claim = await self._run_in(self._with.work.claim_chunk, self._now_s())
        if claim is None:
            return False
        caller = self._caller(claim.batch)
        if caller is None:
            await self._run_in(self._with.work.release, claim.batch, claim.chunk)
            await self._cancel(claim.batch)
            return True
        run = ChunkRun(self._with.computing, claim, caller, self.wake)
        task = self._begin(self._chunk(claim, run), claim.batch)
        key = (claim.batch.number, claim.chunk.number)
        self._chunks[key] = (run, task)
        task.add_done_callback(lambda _: self._chunks.pop(key))
        return True

    def _caller(self, batch: Batch) -> Caller | None:
        return self._with.find_caller(batch.tenant, batch.key_id)

    async def _cancel(self, batch: Batch) -> None:
        """Its tenant or key may not ask for anything any more."""
        told = {"batch": batch.id, "tenant": batch.tenant, "key": batch.key_id}
        _LOG.warning("a batch is cancelled: its key is no longer valid", extra=told)
        with suppress(ConflictError, NotFoundError):
            await self._run_in(self._with.batches.cancel, None, batch.id, self._now_s())
        self.wake()

    async def _chunk(self, claim: Claim, run: ChunkRun) -> None:
        batch, chunk, work = claim.batch, claim.chunk, self._with.work
        try:
            await run.run()
            await self._run_in(work.chunk_done, batch, chunk, self._now_s())
        except (asyncio.CancelledError, NotTakenError):
            # What has been computed counts, and whoever goes on should know of it. After any other
            # error the lease runs out: that is how long to wait before the next attempt.
            await self._with.computing.recorder.flush()
            await self._run_in(work.release, batch, chunk)

    async def _batch(self, batch: Batch) -> None:
        try:
            if batch.status is Status.VALIDATING and batch.expires_s > self._now_s():
                await self._validate(batch)
            else:
                await self._run_in(self._with.finisher.finish, batch, self._now_s())
        except asyncio.CancelledError:
            await self._run_in(self._with.work.release_batch, batch)

    def _begin(self, work: Coroutine[Any, Any, None], batch: Batch) -> asyncio.Task[None]:
        self._held_s = self._clock()
        tried = self._tried(work, self._away, batch=batch.id)
        task = asyncio.get_running_loop().create_task(tried)
        task.add_done_callback(lambda _: self.wake())
        return task

    async def _validate(self, batch: Batch) -> None:
        work, computing = self._with.work, self._with.computing
        caller = self._caller(batch)
        try:
            if caller is None:
                raise NotFoundError("The key that made this batch is no longer valid.")
            file = await self._run_in(
                self._with.files.find, batch.tenant, batch.input_file_id, self._now_s()
            )
        except NotFoundError as error:
            told = {"code": error.code, "line": None, "message": error.message, "param": None}
            await self._run_in(work.fail, batch, [told], self._now_s())
            return
        validation = Validation(computing.gateway, self._with.limits, batch.endpoint, caller)
        found = await validation.run(file, computing.storage, computing.threads)
        if found.errors:
            await self._run_in(work.fail, batch, found.errors, self._now_s())
        else:
            await self._run_in(work.begin, batch, found.chunks, found.models, self._now_s())

    def _now_s(self) -> float:
        return self._with.wall_clock()


class _Standby:
    """Whether this gateway takes on lines. Where one gateway serves all clients and others stand
    by, lines belong into the one that has the clients' requests: only there they wait behind
    them."""

    def __init__(self, traffic: Callable[[], int], now_s: float) -> None:
        self._traffic = traffic
        self._seen = traffic()
        self._asked_s = now_s - _STANDBY_AFTER_S
        self._free_since_s: float | None = None

    def may_take(self, free: bool, elsewhere: bool, now_s: float) -> bool:
        """``free``: there are lines that nobody computes; ``elsewhere``: others compute some."""
        seen = self._traffic()
        if seen != self._seen:
            self._seen, self._asked_s = seen, now_s
        if now_s - self._asked_s < _STANDBY_AFTER_S:
            return free
        if elsewhere or not free:
            self._free_since_s = None
            return False
        if self._free_since_s is None:
            self._free_since_s = now_s
        return now_s - self._free_since_s >= STANDBY_WAIT_S
