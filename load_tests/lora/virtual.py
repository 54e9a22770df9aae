"""Adapters over two replicas in virtual time: the router and the replicas' slots that ship.

An engine is a stand-in whose steps take what :mod:`load_tests.sim.calibrations` has for this
laptop's, and which stands still while an adapter is loaded, as vLLM's does. Closed loop, like
:mod:`load_tests.bench_lora`; what the gateway is told of slots is as old as there.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import router.scorers  # noqa: F401 - registers the policies
from deployments import wire
from deployments.adapters import AdapterSlots
from load_tests.report import percentile
from load_tests.sim.calibrations import load_timing
from router.policy import build_policy
from router.router import Router
from router.types import ReplicaInfo, RouteRequest
from weir.testing import virtual_time

_TOLD_EVERY_S = 0.05
_BLOCK_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Traffic:
    """As in the bench. ``load_s``: so long an engine stands still for a load; ``slow``: steps take
    that many times what they take where an engine has a core for itself."""

    adapters: int = 50
    slots: int = 8
    replicas: int = 2
    requests: int = 2000
    streams: int = 16
    prompts: int = 4
    prompt_tokens: int = 120
    tokens: int = 16
    load_s: float = 0.01
    slow: float = 1.5
    seed: int = 7


@dataclass(slots=True)
class Played:
    """What came of it."""

    ttft_s: list[float] = field(default_factory=list)
    loads: int = 0
    adapted: int = 0

    def row(self) -> dict[str, Any]:
        """As in the bench. ``adapted``: requests that wanted an adapter."""
        ttft_ms = [1000.0 * ttft_s for ttft_s in self.ttft_s]
        return {
            "requests": len(ttft_ms),
            "ttft_p50_ms": percentile(ttft_ms, 50),
            "ttft_p99_ms": percentile(ttft_ms, 99),
            "loads_per_adapter_request": self.loads / max(1, self.adapted),
        }


@dataclass(slots=True)
class _Sequence:
    prompt_left: int
    context: int
    tokens_left: int
    stepped: asyncio.Queue[int]


class _Engine:
    """Continuous batching, one step after the other."""

    def __init__(self, traffic: Traffic) -> None:
        self._timing = load_timing("laptop-cpu")
        self._traffic = traffic
        self._running: list[_Sequence] = []
        self._some = asyncio.Event()
        self._step = asyncio.Lock()
        self._cached: set[tuple[str | None, int]] = set()

    async def add_lora(self, lora_request: object) -> bool:
        async with self._step:
            await asyncio.sleep(self._traffic.load_s)
        return True

    async def remove_lora(self, lora_id: int) -> bool:
        return True

    def add(self, adapter: str | None, prompt: int) -> asyncio.Queue[int]:
        """A request: what comes out of the queue are tokens, one after the other."""
        traffic, key = self._traffic, (adapter, prompt)
        whole = traffic.prompt_tokens // _BLOCK_TOKENS * _BLOCK_TOKENS
        cached = whole if key in self._cached else 0
        self._cached.add(key)
        made = _Sequence(traffic.prompt_tokens - cached, cached, traffic.tokens, asyncio.Queue())
        self._running.append(made)
        self._some.set()
        return made.stepped

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            if not self._running:
                self._some.clear()
                await self._some.wait()
            async with self._step:
                now = list(self._running)
                await asyncio.sleep(self._step_s(now))
            for sequence in now:
                sequence.context += sequence.prompt_left or 1
                sequence.prompt_left = 0
                sequence.tokens_left -= 1
                sequence.stepped.put_nowait(sequence.tokens_left)
            self._running = [s for s in self._running if s.tokens_left > 0]

    def _step_s(self, sequences: Sequence[_Sequence]) -> float:
        timing = self._timing
        prompt = sum(s.prompt_left for s in sequences)
        context = sum(s.context for s in sequences)
        took_s = timing.fixed_s + prompt * timing.prefill_token_s
        took_s += len(sequences) * timing.decode_sequence_s + context * timing.decode_context_s
        return took_s * self._traffic.slow


class _Run:
    def __init__(self, policy: str, traffic: Traffic) -> None:
        self._traffic = traffic
        self._clock = asyncio.get_running_loop().time
        self._engines = [_Engine(traffic) for _ in range(traffic.replicas)]
        self._slots = [
            AdapterSlots(engine, traffic.slots, lambda source: Path(source))
            for engine in self._engines
        ]
        self._router = Router(build_policy(policy), self._clock, random.Random(traffic.seed))
        self._router.set_replicas(
            ReplicaInfo(f"r{n}", kv_blocks_total=4096, block_size=_BLOCK_TOKENS)
            for n in range(traffic.replicas)
        )
        self._played = Played()

    async def all(self) -> Played:
        traffic, rng = self._traffic, random.Random(self._traffic.seed)
        models: list[str | None] = [f"a{n:02d}" for n in range(traffic.adapters)]
        models.insert(1, None)
        every = [(model, prompt) for model in models for prompt in range(traffic.prompts)]
        weights = [1.0 / (place + 1) for place in range(len(models))]
        drawn = rng.choices(models, weights, k=traffic.requests)
        running = [asyncio.create_task(engine.run()) for engine in self._engines]
        running.append(asyncio.create_task(self._tell()))
        await self._ask_all(every, 1)
        loads = self._loads()
        self._played = Played(adapted=sum(model is not None for model in drawn))
        await self._ask_all([(m, rng.randrange(traffic.prompts)) for m in drawn], traffic.streams)
        self._played.loads = self._loads() - loads
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return self._played

    def _loads(self) -> int:
        return sum(slots.loads for slots in self._slots)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_TOLD_EVERY_S)
            for number, slots in enumerate(self._slots):
                told = slots.told()
                self._router.adapters.told(
                    f"r{number}", told.loaded, told.busy, told.slots, told.load_s, told.loads
                )

    async def _ask_all(self, questions: Sequence[tuple[str | None, int]], streams: int) -> None:
        left = iter(questions)

        async def work() -> None:
            for model, prompt in left:
                await self._ask(model, prompt)

        await asyncio.gather(*(work() for _ in range(streams)))

    def _request(self, model: str | None, prompt: int) -> RouteRequest:
        traffic = self._traffic
        blocks = traffic.prompt_tokens // _BLOCK_TOKENS
        name = f"{model} {prompt}".encode()
        return RouteRequest(
            "q",
            "m",
            "t",
            traffic.prompt_tokens,
            traffic.tokens,
            traffic.tokens,
            block_hashes=tuple(zlib.crc32(name, block) for block in range(blocks)),
            arrival_s=self._clock(),
            adapter=model,
        )

    async def _ask(self, model: str | None, prompt: int) -> None:
        asked_s = self._clock()
        reservation = self._router.choose(self._request(model, prompt))
        number = int(reservation.replica_id[1:])
        slots = self._slots[number]
        held = None
        if model is not None:
            held = await slots.hold(wire.Adapter(model, "/"))
        stepped = self._engines[number].add(model, prompt)
        first = True
        while True:
            tokens_left = await stepped.get()
            if first:
                self._played.ttft_s.append(self._clock() - asked_s)
                first = False
            reservation.progress(1)
            if not tokens_left:
                break
        reservation.release()
        if held is not None and model is not None:
            slots.release(model)


def play(policy: str, traffic: Traffic) -> Played:
    """One policy on that traffic."""
    return virtual_time.run(_play(policy, traffic), limits=virtual_time.Limits(span_s=1e6))


async def _play(policy: str, traffic: Traffic) -> Played:
    return await _Run(policy, traffic).all()
