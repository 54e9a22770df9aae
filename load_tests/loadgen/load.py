"""N closed-loop streams against one target, measured over a window in mid-load."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import uvloop

from load_tests.loadgen.connection import StreamConnection, Target
from load_tests.loadgen.sample import CHAT_SHAPE, Sample, Shape, Watch

RECONNECT_PAUSE_S = 0.05
DRAIN_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Load:
    """``streams`` requests under way at all times. The first ``warmup_s`` do not count; then
    requests that end within ``window_s`` do. ``expected_tokens``: output tokens of each;
    ``shape``: how the answers are read."""

    streams: int
    expected_tokens: int
    warmup_s: float
    window_s: float
    shape: Shape = CHAT_SHAPE


@dataclass(frozen=True, slots=True)
class Outcome:
    """``samples`` ended within the window; ``late`` after it, counted only if they failed.

    ``generator_cpu_s``: this process's own CPU time within the window.
    """

    samples: tuple[Sample, ...]
    late: tuple[Sample, ...]
    window_s: float
    generator_cpu_s: float

    @property
    def faults(self) -> tuple[str, ...]:
        """What went wrong, in the window or after it, each kind once."""
        texts = (sample.error for sample in (*self.samples, *self.late))
        return tuple(dict.fromkeys(text for text in texts if text is not None))


def run_load(
    target: Target,
    load: Load,
    bodies: Sequence[bytes],
    edge: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run the load to its end. ``edge`` is called at the window's start and at its end, from the
    event loop: whoever accounts for the servers' CPU time reads it there.

    Bodies are used in order, again from the first when they run out.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Run(target, load, bodies).run(edge))


class _Run:
    def __init__(self, target: Target, load: Load, bodies: Sequence[bytes]) -> None:
        self._target = target
        self._load = load
        requests = [target.request(body) for body in bodies]
        self._requests: Iterator[bytes] = itertools.cycle(requests)
        self._samples: list[Sample] = []
        self._connections: dict[int, StreamConnection[Sample]] = {}
        self._over = False

    async def run(self, edge: Callable[[], None]) -> Outcome:
        tasks = [asyncio.create_task(self._stream(n)) for n in range(self._load.streams)]
        await asyncio.sleep(self._load.warmup_s)
        edge()
        self._samples = []
        start_s, start_cpu_s = time.monotonic(), time.process_time()
        await asyncio.sleep(self._load.window_s)
        edge()
        end_s, end_cpu_s = time.monotonic(), time.process_time()
        in_window, self._samples = self._samples, []
        self._over = True
        _, pending = await asyncio.wait(tasks, timeout=DRAIN_TIMEOUT_S)
        for connection in self._connections.values():
            connection.give_up(f"still under way {DRAIN_TIMEOUT_S:.0f} s after the window")
        if pending:
            await asyncio.wait(pending, timeout=5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return Outcome(
            tuple(in_window), tuple(self._samples), end_s - start_s, end_cpu_s - start_cpu_s
        )

    async def _stream(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        while not self._over:
            asked_s = time.monotonic()
            try:
                _, connection = await loop.create_connection(
                    self._connection, self._target.host, self._target.port
                )
            except OSError as error:
                reason = f"cannot connect: {error}"
                self._samples.append(Sample(asked_s, time.monotonic(), error=reason))
                await asyncio.sleep(RECONNECT_PAUSE_S)
                continue
            self._connections[number] = connection
            await connection.closed.wait()
            del self._connections[number]
            if connection.failed:
                # A server that refuses everything must not be hammered in a tight loop.
                await asyncio.sleep(RECONNECT_PAUSE_S)

    def _connection(self) -> StreamConnection[Sample]:
        return StreamConnection(self._next_request, self._report, time.monotonic)

    def _report(self, sample: Sample) -> None:
        # The list is replaced at the window's edges, so its method must not be handed out.
        self._samples.append(sample)

    def _next_request(self) -> tuple[bytes, Callable[[float], Watch]] | None:
        if self._over:
            return None
        return next(self._requests), self._watch

    def _watch(self, sent_s: float) -> Watch:
        return Watch(sent_s, self._load.expected_tokens, self._load.shape)
