"""What a run is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from load_tests.report import percentile
from load_tests.sim.request import SimRequest
from load_tests.sim.world import World


@dataclass(frozen=True, slots=True)
class Slo:
    """A request is good when it meets both."""

    ttft_s: float
    tpot_s: float

    def met(self, request: SimRequest) -> bool:
        """Finished, first token in time, and the others on average too."""
        ttft, tpot = request.ttft_s, request.tpot_s
        if ttft is None or tpot is None:
            return False
        return ttft <= self.ttft_s and tpot <= self.tpot_s


class Judge(Protocol):
    """Says which requests are good."""

    def met(self, request: SimRequest) -> bool: ...


@dataclass(frozen=True, slots=True)
class ClassSlos:
    """A target for each priority class."""

    by_class: Mapping[str, Slo]

    def met(self, request: SimRequest) -> bool:
        """By the request's class."""
        return self.by_class[request.trace.priority_class].met(request)


@dataclass(frozen=True, slots=True)
class Window:
    """Requests that arrive in ``[start_s, end_s)`` are counted."""

    start_s: float
    end_s: float

    def __contains__(self, time_s: float) -> bool:
        return self.start_s <= time_s < self.end_s


def figures(world: World, slo: Judge, window: Window) -> dict[str, Any]:
    """The figures of one run, over the requests that arrived in the window.

    Good requests are divided by the window's length, so a backlog that is worked off later
    earns nothing. Latencies are of requests that got a first token.
    """
    counted = [request for request in world.requests if request.arrival_s in window]
    served = [request for request in counted if request.dispatched_s is not None]
    good = sum(1 for request in counted if slo.met(request))
    length = window.end_s - window.start_s
    prompt = sum(request.trace.prompt_tokens for request in served)
    return {
        "goodput_req_per_s": good / length,
        "good_share": good / max(1, len(counted)),
        **latencies(served),
        "hit_rate": sum(request.cached_tokens for request in served) / max(1, prompt),
        "imbalance_max_over_mean": imbalance(world),
        "shed_share": sum(1 for r in counted if r.shed_reason is not None) / max(1, len(counted)),
        "offered_req_per_s": len(counted) / length,
        "utilisation": sum(e.busy_s for e in world.engines)
        / (len(world.engines) * max(world.now_s, 1e-9)),
        "preemptions": sum(engine.preemptions for engine in world.engines),
        "requests": len(counted),
    }


def latencies(requests: Sequence[SimRequest]) -> dict[str, float | None]:
    """TTFT p50/p90/p99 and TPOT p50/p99."""
    ttft = [request.ttft_s * 1e3 for request in requests if request.ttft_s is not None]
    tpot = [request.tpot_s * 1e3 for request in requests if request.tpot_s is not None]
    return {
        "ttft_p50_ms": percentile(ttft, 50),
        "ttft_p90_ms": percentile(ttft, 90),
        "ttft_p99_ms": percentile(ttft, 99),
        "tpot_p50_ms": percentile(tpot, 50),
        "tpot_p99_ms": percentile(tpot, 99),
    }


def imbalance(world: World) -> float:
    """Work done by the busiest engine over the mean; work is step time without its fixed part,
    so an engine that spins on one sequence does not look as busy as one that prefills."""
    timing = world.config.timing
    work = [
        engine.prefill_tokens * timing.prefill_token_s
        + engine.decode_tokens * timing.decode_sequence_s
        for engine in world.engines
    ]
    mean = sum(work) / len(work)
    return max(work) / mean if mean else 1.0
