"""What the admission queue costs, and how fairly it shares.

Cost: each call timed alone, in CPU time of its thread, with a steady number of requests waiting
(each round offers one request, dispatches one, tells of two tokens, finishes it; every tenth round
also cancels and replaces a waiting one). The queue is asked with a capacity that always has room,
so that what is timed is the queue; the capacity over 64 replicas and the asyncio gate have their
own rows. The garbage collector runs as in a gateway.

Fairness: eight backlogged tenants with unlike prompts, answers, weights and errors of the length
estimate, on an engine with a bound on tokens in flight (one output token per request and step).
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import router.scorers  # noqa: F401 - registers the policies
from load_tests.report import Mark, Report, bench_parser, emit
from load_tests.report.stats import percentile
from router.admission import (
    AdmissionQueue,
    AdmissionSettings,
    ClassSettings,
    Dispatch,
    Room,
    Share,
)
from router.admission.gate import Gate
from router.admission.limit import build_limits
from router.dispatcher import Dispatcher
from router.held import NOTHING_HELD
from router.policy import build_policy
from router.router import Router
from router.snapshot import Snapshot
from router.types import ReplicaInfo, ReplicaLoad, ReplicaStats, ReplicaView, RouteRequest
from router.view import View

TENANTS = 200
CLASSES = tuple(
    ClassSettings(name, urgency, max_requests=10**6, ttft_slo_ms=3.6e6, max_wait_s=7200.0)
    for urgency, name in enumerate(("interactive", "standard", "batch"))
)
SETTINGS = AdmissionSettings(enabled=True, classes=CLASSES)
W_P, W_Q = 1.0, 2.0


class AlwaysRoom:
    """A capacity that costs nothing."""

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        return frozenset()

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        return False


class Stopwatch:
    """Times single calls, in microseconds, by name."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {}

    def __call__(self, name: str, call: Callable[..., Any], *args: Any) -> Any:
        begin = time.thread_time_ns()
        result = call(*args)
        self.samples.setdefault(name, []).append((time.thread_time_ns() - begin) / 1000.0)
        return result

    def row(self, system: str, **more: Any) -> dict[str, Any]:
        row: dict[str, Any] = {"system": system, **more}
        for name, samples in self.samples.items():
            row[f"{name}_p50_us"] = percentile(samples, 50)
            row[f"{name}_p99_us"] = percentile(samples, 99)
        return row


def requests(rng: random.Random) -> Iterator[RouteRequest]:
    """An endless mix: 200 tenants, three classes, prompts of 1 to 8000 tokens."""
    for number in itertools.count():
        yield RouteRequest(
            f"r{number}",
            "m",
            f"t{rng.randrange(TENANTS)}",
            prompt_tokens=rng.randint(1, 8000),
            max_output_tokens=1000,
            expected_output_tokens=rng.randint(1, 500),
            priority_class=CLASSES[rng.choices((0, 1, 2), (5, 3, 2))[0]].name,
        )


def queue_row(waiting: int, rounds: int, seed: int) -> dict[str, Any]:
    """Each call's cost with that many requests waiting."""
    rng = random.Random(seed)
    source = requests(rng)
    queue = AdmissionQueue(SETTINGS, time.monotonic)
    room, watch, ids = AlwaysRoom(), Stopwatch(), []
    for request in itertools.islice(source, waiting):
        queue.offer(request)
        ids.append(request.request_id)
    for number in range(rounds):
        request = next(source)
        watch("offer", queue.offer, request)
        ids.append(request.request_id)
        outcome = watch("next", queue.next, room)
        assert isinstance(outcome, Dispatch)
        running = outcome.request.request_id
        watch("progress", queue.progress, running, 1)
        watch("progress", queue.progress, running, 1)
        watch("finish", queue.finish, running)
        if number % 10 == 0:
            while not watch("cancel", queue.cancel, ids.pop(rng.randrange(len(ids)))):
                watch.samples["cancel"].pop()
            queue.offer(next(source))
    return watch.row("AdmissionQueue", waiting=waiting)


def capacity_row(replicas: int, rounds: int, seed: int) -> dict[str, Any]:
    """Room over that many replicas, nearly all of them saturated, stats fresh."""
    rng = random.Random(seed)
    views = tuple(
        ReplicaView(
            ReplicaInfo(f"r{n}", kv_blocks_total=100_000),
            ReplicaLoad(100, rng.randint(0, 12_000), 20_000, 300_000),
            ReplicaStats(100, 0, rng.randint(60_000, 99_000), 0.0),
        )
        for n in range(replicas)
    )
    columns = Snapshot(0.0, views).columns
    watch, request = Stopwatch(), next(requests(rng))

    limits = build_limits(SETTINGS.limits)

    def ask() -> frozenset[str] | None:
        view = View(0.0, columns, lambda hashes: NOTHING_HELD, lambda replica_id: math.inf)
        return Room(view, limits).saturated_for(request, Share(0.85, 0.9, 0.95))

    for _ in range(rounds):
        watch("capacity", ask)
    return watch.row("Room", replicas=replicas)


def gate_rows(rounds: int, seed: int) -> list[dict[str, Any]]:
    """A request that need not wait, through the gate, the choice of a replica included, and out
    again: with admission off, and on."""

    async def through(settings: AdmissionSettings) -> Stopwatch:
        clock = asyncio.get_running_loop().time
        router = Router(build_policy("round-robin"), clock, random.Random(seed))
        router.set_replicas(ReplicaInfo(f"r{n}") for n in range(8))
        gate = Gate(Dispatcher(router, settings, clock, time.time))
        watch, source = Stopwatch(), requests(random.Random(seed))
        for request in itertools.islice(source, rounds):
            begin = time.thread_time_ns()
            async with gate.admit(request):
                pass
            passed_us = (time.thread_time_ns() - begin) / 1000.0
            watch.samples.setdefault("passage", []).append(passed_us)
        return watch

    off = replace(SETTINGS, enabled=False)
    return [
        asyncio.run(through(off)).row("Gate, admission off"),
        asyncio.run(through(SETTINGS)).row("Gate, nothing waits"),
    ]


class TokenEngine:
    """Runs what fits into ``limit`` tokens, one output token per request and step; counts what
    each tenant was really given, in weighted tokens."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.outputs: dict[str, int] = {}
        self.left: dict[str, tuple[RouteRequest, int]] = {}
        self.service: dict[str, float] = {}

    def size(self, request: RouteRequest) -> int:
        output = max(request.expected_output_tokens, self.outputs[request.request_id])
        return request.prompt_tokens + output

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        return frozenset() if self.taken + self.size(request) <= self.limit else None

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        return False

    def step(self, queue: AdmissionQueue) -> None:
        while isinstance(outcome := queue.next(self), Dispatch):
            request = outcome.request
            self.left[request.request_id] = (request, self.outputs[request.request_id])
            self.taken += self.size(request)
            served = self.service.get(request.tenant, 0.0)
            self.service[request.tenant] = served + W_P * request.prompt_tokens
        for key, (request, left) in list(self.left.items()):
            self.service[request.tenant] += W_Q
            queue.progress(key, 1)
            self.left[key] = (request, left - 1)
            if left == 1:
                del self.left[key]
                self.taken -= self.size(request)
                queue.finish(key)


def fairness_row(steps: int, seed: int) -> dict[str, Any]:
    """Eight unlike tenants, backlogged from the start to the end."""
    rng = random.Random(seed)
    weights = {f"t{n}": (1.0, 2.0)[n % 2] for n in range(8)}
    only = ClassSettings("standard", 0, max_requests=10**6, max_wait_s=None)
    settings = AdmissionSettings(classes=(only,), tenant_weights=weights, tenant_share_of_free=1e6)
    queue, engine = AdmissionQueue(settings, lambda: 0.0), TokenEngine(limit=20_000)
    longest = 0
    for (n, tenant), number in itertools.product(enumerate(weights), range(steps)):
        prompt, output = rng.randint(1, 100) * (1 + n), rng.randint(1, 60)
        expected = max(0, output + rng.randint(-30, 30))
        longest = max(longest, prompt)
        key = f"{tenant}-{number}"
        engine.outputs[key] = output
        queue.offer(RouteRequest(key, "m", tenant, prompt, 60, expected))
    spread = 0.0
    for _ in range(steps):
        engine.step(queue)
        shares = [engine.service.get(t, 0.0) / w for t, w in weights.items()]
        spread = max(spread, max(shares) - min(shares))
    bound = 2 * max(W_P * longest, W_Q * engine.limit) / min(weights.values())
    return {
        "system": "AdmissionQueue, 8 backlogged tenants",
        "jains_index": sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares)),
        "max_spread_weighted_tokens": spread,
        "bound_weighted_tokens": bound,
        "least_service_weighted_tokens": min(shares),
        "backlogged_to_the_end": queue.stats()[0].tenants_waiting,
    }


def marks(small: dict[str, Any], large: dict[str, Any], fair: dict[str, Any]) -> list[Mark]:
    """The issue's fairness target; the decision's budget for the part that is admission."""
    both_p50 = large["offer_p50_us"] + large["next_p50_us"]
    both_p99 = large["offer_p99_us"] + large["next_p99_us"]
    growth = both_p50 / (small["offer_p50_us"] + small["next_p50_us"])
    spread = fair["max_spread_weighted_tokens"] / fair["bound_weighted_tokens"]
    return [
        Mark("offer + next, 100k waiting, p50", both_p50, "µs", 50.0, "lower"),
        Mark("offer + next, 100k waiting, p99", both_p99, "µs", 500.0, "lower"),
        Mark("offer + next p50, 100k over 1k waiting", growth, "ratio", 3.0, "lower"),
        Mark("Jain's index among backlogged tenants", fair["jains_index"], "", 0.98, "higher"),
        Mark("max-min normalised service over its bound", spread, "ratio", 1.0, "lower"),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks."""
    options = bench_parser("admission", __doc__).parse_args(argv)
    rounds = 2_000 if options.quick else 50_000
    sizes = {n: queue_row(n, rounds, options.seed) for n in (1_000, 10_000, 100_000)}
    fair = fairness_row(400 if options.quick else 2_000, options.seed)
    rows = [
        *({**row, "table": "µs per call, by requests waiting"} for row in sizes.values()),
        {**capacity_row(64, rounds // 10, options.seed), "table": "room, per question"},
        *({**r, "table": "µs per request that need not wait"} for r in gate_rows(rounds, 7)),
        {**fair, "table": "fairness"},
    ]
    notes = (
        "µs are the thread's own CPU time: the garbage collector counts, other processes do not",
        "the fairness run is on a synthetic engine; latencies under load are the priority bench's",
    )
    found = marks(sizes[1_000], sizes[100_000], fair)
    return emit(Report("admission", options.seed, rows, found, notes), options, argv)


if __name__ == "__main__":
    sys.exit(main())
