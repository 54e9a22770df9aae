"""``weir bench decision``: what one routing decision costs, and hashing and index memory apart.

64 replicas hold 100,000 KV blocks each (16 tokens a block): one trunk that every prompt shares, 200
tenants' contexts behind it, and sessions behind those, each on one replica. A decision is
``Dispatcher.offer`` for a prompt of 512 blocks, hashed already, with admission as shipped: expected
length, lookup over all replicas, forecast, queue, room by all limits, scores, choice, reservation,
and recording the dispatch in the index. 70 % of the prompts continue a session (448 of 512 blocks
are held somewhere), the others open one (128). Between decisions, untimed, requests progress and
finish and the engine's KV events arrive, so the index stays full. There is room for each request:
what is timed is a decision, not a wait.

Wall times on a machine that others use too show their work as well: ``cpu`` is the deciding
thread's own time, and a note says how busy the machine was.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from load_tests.decision_world import (
    BLOCK_TOKENS,
    PROMPT_BLOCKS,
    SESSION_BLOCKS,
    TENANT_BLOCKS,
    TRUNK_BLOCKS,
    Size,
    World,
)
from load_tests.report import (
    Mark,
    Report,
    Row,
    absent_row,
    bench_parser,
    emit,
    interleave,
    median,
    percentile,
)
from router.admission import Ticket
from router.hashing import BlockHasher, VllmHasher
from router.prefix_index import PrefixIndex
from router.shipped import shipped_profile
from router.types import ReplicaInfo, RouteRequest

T = TypeVar("T")
IN_FLIGHT = 256
FIGURES = ("p50_us", "p99_us", "cpu_p50_us", "cpu_p99_us", "hit_share")


class System(Protocol):
    """One row: ``decide`` is timed, ``settle`` is not."""

    name: str

    def request(self, prompt: tuple[int, ...]) -> Any:
        """The prompt in the system's own form (not timed: the gateway has made it by then)."""
        ...

    def decide(self, request: Any) -> float:
        """Decide; returns the share of the prompt that the choice holds."""
        ...

    def settle(self) -> None:
        """What happens in the world after it."""
        ...


class WeirSystem:
    """A real dispatcher over a full index. ``events``: replicas publish KV events; without
    ``hashes`` the policy is one that has no use for the index."""

    def __init__(
        self, world: World, name: str, policy: str, *, events: bool = False, hashes: bool = True
    ) -> None:
        self.name = name
        self._hashes, self._events, self._blocks = hashes, events, world.size.blocks
        self._now_s = 100.0
        self._live: deque[Ticket] = deque()
        self._count = 0
        kv_prompts = world.size.replicas * world.size.blocks // PROMPT_BLOCKS
        self._most = max(1, min(IN_FLIGHT, kv_prompts // 4))
        profile = replace(shipped_profile(), policy=policy)
        self.dispatcher = profile.dispatcher(self._clock, self._clock, random.Random(1))
        self.router = self.dispatcher.router
        size = world.size
        self.router.set_replicas(
            ReplicaInfo(rid, kv_blocks_total=size.blocks, max_running=4096, kv_events=events)
            for rid in world.replicas
        )
        # Sessions by their first own block, least recently used first, as an engine's LRU has them.
        own = TRUNK_BLOCKS + TENANT_BLOCKS
        self._held = {
            rid: OrderedDict((session[own], session) for session in sessions)
            for rid, sessions in world.sessions.items()
        }
        if hashes:
            for rid, sessions in world.sessions.items():
                for session in sessions:
                    self._begin(rid, session)

    def _clock(self) -> float:
        return self._now_s

    def request(self, prompt: tuple[int, ...]) -> RouteRequest:
        self._count += 1
        blocks = prompt if self._hashes else ()
        tokens = PROMPT_BLOCKS * BLOCK_TOKENS + 7
        return RouteRequest(f"q{self._count}", "m", "t", tokens, 400, block_hashes=blocks)

    def decide(self, request: RouteRequest) -> float:
        ticket = self.dispatcher.offer(request)
        assert isinstance(ticket, Ticket)
        self._live.append(ticket)
        return ticket.grant.decision.overlap_blocks / PROMPT_BLOCKS

    def settle(self) -> None:
        """The engine stores the prompt, evicts an old one tail first; another request ends."""
        self._now_s += 0.01
        ticket = self._live[-1]
        grant = ticket.grant
        rid, prompt = grant.replica_id, grant.request.block_hashes
        if self._events and self._hashes:
            overlap = grant.decision.overlap_blocks
            parent = prompt[overlap - 1] if overlap else None
            self._store(rid, prompt, overlap, parent)
        ticket.progress(1)
        if len(self._live) > self._most:
            self._live.popleft().close(complete=True)

    def _store(self, rid: str, prompt: tuple[int, ...], at: int, parent: int | None) -> None:
        index, held, own = self.router.index, self._held[rid], TRUNK_BLOCKS + TENANT_BLOCKS
        index.stored(rid, prompt[at:], parent)
        held[prompt[own]] = prompt
        held.move_to_end(prompt[own])
        while index.blocks(rid) > self._blocks and len(held) > 1:
            index.removed(rid, reversed(held.popitem(last=False)[1][own:]))

    def _begin(self, replica_id: str, session: tuple[int, ...]) -> None:
        if self._events:
            self.router.index.stored(replica_id, session)
        else:
            self.router.index.dispatched(replica_id, session, self._now_s)


class DeepSystem(WeirSystem):
    """The worst case for the index: every replica holds the prompt to another depth."""

    def request(self, prompt: tuple[int, ...]) -> RouteRequest:
        return super().request(self._prompt)

    def settle(self) -> None:
        super().settle()
        rid = self._live[-1].grant.replica_id
        self.router.index.removed(rid, self._prompt[self._depths[rid] :])

    def prepare(self, prompt: tuple[int, ...]) -> DeepSystem:
        """Give each replica its depth, spread evenly over the prompt."""
        ids = [info.replica_id for info in self.router.members]
        self._prompt = prompt
        self._depths = {rid: 1 + n * PROMPT_BLOCKS // len(ids) for n, rid in enumerate(ids)}
        for rid, depth in self._depths.items():
            self.router.index.stored(rid, prompt[:depth])
        return self


class DynamoTree:
    """Dynamo's RadixTree as its wheel offers it: the lookup alone, over the same blocks. Its cost
    over the workers, and recording the choice, would come on top."""

    name = "dynamo RadixTree.find_matches (lookup only)"

    def __init__(self, world: World, tree: Any) -> None:
        self._tree = tree
        for worker, sessions in enumerate(world.sessions.values()):
            for number, session in enumerate(sessions):
                blocks = [{"block_hash": block, "tokens_hash": block} for block in session]
                stored = {"stored": {"parent_hash": None, "blocks": blocks}}
                event = {"event_id": number, "data": stored, "dp_rank": 0}
                tree.apply_event(worker, json.dumps(event).encode())

    def request(self, prompt: tuple[int, ...]) -> list[int]:
        return list(prompt)

    def decide(self, request: list[int]) -> float:
        scores = self._tree.find_matches(request).scores
        return max(scores.values(), default=0) / PROMPT_BLOCKS

    def settle(self) -> None:
        pass


def measure(systems: Sequence[System], world: World, seed: int) -> list[Row]:
    """Rows with the median over the rounds of each round's percentiles."""
    figures: dict[str, list[tuple[float, ...]]] = {system.name: [] for system in systems}
    gc.collect()
    for number, system in interleave(systems, world.size.rounds):
        wall, cpu, hits = [], [], []
        for prompt in world.prompts(world.size.decisions, seed + number):
            request = system.request(prompt)
            cpu_from, wall_from = time.thread_time_ns(), time.perf_counter_ns()
            hit = system.decide(request)
            wall.append((time.perf_counter_ns() - wall_from) / 1000)
            cpu.append((time.thread_time_ns() - cpu_from) / 1000)
            hits.append(hit)
            system.settle()
        figures[system.name].append(
            (*_p50_p99(wall), *_p50_p99(cpu), sum(hits) / len(hits) if hits else 0.0)
        )
    rows: list[Row] = []
    for name, rounds in figures.items():
        middle = [median(column) for column in zip(*rounds, strict=True)]
        rows.append({"system": name, **dict(zip(FIGURES, middle, strict=True))})
    return rows


def _p50_p99(values: list[float]) -> tuple[float, float]:
    return percentile(values, 50) or 0.0, percentile(values, 99) or 0.0


def hashing_rows(seed: int) -> list[Row]:
    """Hashing one prompt of 8192 tokens, best of several (it has no variance of its own)."""
    rng = random.Random(seed)
    tokens = [rng.randrange(128_000) for _ in range(PROMPT_BLOCKS * BLOCK_TOKENS)]
    hashers: dict[str, BlockHasher] = {
        "vLLM sha256 (pickle)": VllmHasher(BLOCK_TOKENS),
        "vLLM sha256_cbor": VllmHasher(BLOCK_TOKENS, "sha256_cbor"),
    }
    rows: list[Row] = []
    for name, hasher in hashers.items():
        best_us = min(_cpu_us(partial(hasher.keys, tokens)) for _ in range(20))
        rows.append({"system": name, "table": "hashing 8192 tokens", "prompt_us": best_us})
    return rows


def _each(items: Iterable[T], call: Callable[[T], object]) -> None:
    for item in items:
        call(item)


def _cpu_us(call: Callable[[], object]) -> float:
    start = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - start) / 1000


def memory_row(name: str, index: PrefixIndex) -> Row:
    """The index as it stands after the decisions."""
    memory = index.memory()
    return {
        "system": name,
        "table": "index memory",
        "pairs": memory.pairs,
        "bytes_per_block_and_replica": memory.bytes_per_pair,
        "total_mib": memory.total_bytes / 2**20,
    }


def event_row(world: World) -> Row:
    """Applying KV events to an index of one replica: a session stored, then freed tail first."""
    index = PrefixIndex()
    rid = world.replicas[0]
    index.add_replica(rid, 10 * world.size.blocks)
    sessions = world.sessions[rid]
    stored = _cpu_us(lambda: _each(sessions, lambda session: index.stored(rid, session)))
    tails = [session[TRUNK_BLOCKS + TENANT_BLOCKS :] for session in sessions]
    removed = _cpu_us(lambda: _each(tails, lambda tail: index.removed(rid, reversed(tail))))
    blocks = SESSION_BLOCKS * len(sessions)
    return {
        "system": "weir index",
        "table": "KV events",
        "stored_us_per_block": stored / blocks,
        "removed_us_per_block": removed / blocks,
    }


def peers(world: World) -> tuple[list[System], list[dict[str, Any]]]:
    """Peers that can be asked here, and rows that say why the others cannot."""
    absent = [
        absent_row(
            "sglang-router cache_aware",
            "its wheel offers the whole HTTP router only; its tree cannot be asked for a decision "
            "(the live and simulated comparisons have it)",
            FIGURES,
        )
    ]
    if importlib.util.find_spec("dynamo") is None:
        reason = "ai-dynamo-runtime is not installed (extra: peers)"
        return [], [absent_row(DynamoTree.name, reason, FIGURES), *absent]
    from dynamo.llm import RadixTree  # type: ignore[import-not-found]

    return [DynamoTree(world, RadixTree())], absent


def marks(rows: Sequence[Row], memory: Row) -> list[Mark]:
    """The issue's targets."""
    weir = next(row for row in rows if row["system"].startswith("weir"))
    per_block = memory["bytes_per_block_and_replica"]
    return [
        Mark("decision p50", weir["p50_us"], "µs", 50.0, "lower"),
        Mark("decision p99", weir["p99_us"], "µs", 500.0, "lower"),
        Mark("index memory per block and replica", per_block, "bytes", 100.0, "lower"),
    ]


def run(size: Size, options: argparse.Namespace) -> Report:
    """Build the worlds, measure, report."""
    world = World(size, options.seed)
    weir = WeirSystem(world, "weir", "weir", events=True)
    silent = WeirSystem(world, "weir, replicas without KV events", "weir")
    small = World(replace(size, blocks=size.blocks // 20), options.seed)
    deep = DeepSystem(small, "weir, every replica at another depth", "weir", events=True)
    systems: list[System] = [weir, silent, deep.prepare(world.prompts(1, 0)[0])]
    systems += [
        WeirSystem(small, name, policy, hashes=False)
        for name, policy in (
            ("round-robin", "round-robin"),
            ("least-outstanding-tokens", "least-outstanding-tokens"),
            ("power-of-two", "power-of-two"),
        )
    ]
    present, absent = peers(world)
    rows = [*measure([*systems, *present], world, options.seed), *absent]
    memory = [memory_row(system.name, system.router.index) for system in (weir, silent)]
    others = [*hashing_rows(options.seed), *memory, event_row(world)]
    notes = (
        f"{size.replicas} replicas × {size.blocks} blocks, {size.decisions} decisions × "
        f"{size.rounds} interleaved rounds, medians of the rounds' percentiles.",
        "Decisions include admission, the reservation and recording the dispatch in the index.",
        f"Load average over the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "Memory is the sum of sys.getsizeof over every part of the index, hash values included.",
    )
    return Report("decision", options.seed, [*rows, *others], marks(rows, memory[0]), notes)


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser("decision", __doc__)
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=100_000, help="indexed per replica")
    parser.add_argument("--decisions", type=int, default=2000, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    size = Size(options.replicas, options.blocks, options.decisions, options.rounds)
    if options.quick:
        size = Size(min(8, size.replicas), min(5000, size.blocks), 100, 2)
    return emit(run(size, options), options, argv)


if __name__ == "__main__":
    raise SystemExit(main())
