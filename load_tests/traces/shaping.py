"""Changes to a whole trace: rate, jitter, head, classes and tenants, merging."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from load_tests.traces.schema import Trace, TraceError, TraceRequest


def jitter_ticks(trace: Trace, seed: int) -> Trace:
    """Spread arrivals uniformly inside their tick: the recording's step is not a burst."""
    if trace.closed_loop or not trace.tick_s:
        return trace
    rng = random.Random(seed)
    moved = [
        replace(request, arrival_s=request.arrival_s + rng.uniform(0, trace.tick_s))
        for request in trace.requests
    ]
    moved.sort(key=lambda request: request.arrival_s)
    return replace(trace, requests=tuple(moved), tick_s=0.0)


def scale_rate(trace: Trace, multiplier: float) -> Trace:
    """The same requests, ``multiplier`` times as fast (open loop)."""
    if multiplier <= 0:
        raise TraceError(f"a rate multiplier must be positive, not {multiplier}")
    if trace.closed_loop:
        raise TraceError(f"{trace.name} is closed-loop: its load is the number of users")
    start = trace.requests[0].arrival_s
    scaled = (
        replace(request, arrival_s=start + (request.arrival_s - start) / multiplier)
        for request in trace.requests
    )
    return replace(trace, requests=tuple(scaled), tick_s=trace.tick_s / multiplier)


def head(trace: Trace, requests: int) -> Trace:
    """The first ``requests`` requests, in whole sessions where there are sessions."""
    if not trace.closed_loop:
        return replace(trace, requests=trace.requests[:requests])
    kept: list[tuple[int, ...]] = []
    for session in trace.sessions:
        if kept and session[-1] >= requests:
            break
        kept.append(session)
    end = kept[-1][-1] + 1
    return replace(trace, requests=trace.requests[:end], sessions=tuple(kept))


def assign_classes(trace: Trace, shares: Mapping[str, float], seed: int) -> Trace:
    """Give each request (each session, where there are sessions) a priority class at random,
    in the proportions of ``shares``."""
    rng = random.Random(seed)
    names = list(shares)
    weights = list(shares.values())
    by_session: dict[str, str] = {}
    out = []
    for request in trace.requests:
        name = rng.choices(names, weights)[0]
        if request.session is not None:
            name = by_session.setdefault(request.session, name)
        out.append(replace(request, priority_class=name))
    return replace(trace, requests=tuple(out))


def merge(traces: Sequence[Trace], name: str) -> Trace:
    """Several open-loop traces as one, in order of arrival; block sizes must agree."""
    if any(trace.closed_loop for trace in traces):
        raise TraceError("closed-loop traces cannot be merged")
    sizes = {trace.block_size for trace in traces}
    if len(sizes) != 1:
        raise TraceError(f"block sizes differ: {sorted(sizes)}")
    requests: list[TraceRequest] = [request for trace in traces for request in trace.requests]
    requests.sort(key=lambda request: request.arrival_s)
    return Trace(name, traces[0].format, sizes.pop(), tuple(requests))
