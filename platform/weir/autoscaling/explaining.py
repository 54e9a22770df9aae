"""A decision in words, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from weir.autoscaling.keeping import Kept
from weir.autoscaling.report import Backlog, Demand, PoolState


def explained(kept: Kept) -> str:
    """What was seen, what was decided and why, and what else was weighed."""
    return "\n".join(_lines(kept))


def counted(targets: Mapping[str, int]) -> str:
    """Replicas by pool."""
    return ", ".join(f"{pool} {count}" for pool, count in targets.items()) or "none"


def moment(at_s: float) -> str:
    """A time, UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _lines(kept: Kept) -> Iterator[str]:
    before, after = counted(kept.targets_before), counted(kept.targets)
    change = f"{before} -> {after}" if kept.changed else f"{after} (unchanged)"
    yield f"{kept.model} at {moment(kept.at_s)} UTC, policy {kept.policy}"
    yield f"  replicas: {change}, {kept.usd_per_hour:.2f} USD per hour"
    yield f"  because: {kept.explanation.because}"
    if kept.spill_share:
        yield f"  to the student: {kept.spill_share:.1%} of the requests that cannot wait"
    yield "  demand:"
    for name, demand in kept.state.classes.items():
        yield f"    {name}: {_demand(demand)}"
    if not kept.state.classes:
        yield "    nothing was asked for"
    if kept.state.backlog.lines:
        yield f"    batches: {_backlog(kept.state.backlog)}"
    yield "  pools:"
    for pool in kept.state.pools:
        yield f"    {pool.name}: {_pool(pool)}"
    if kept.explanation.seen:
        yield "  the policy's figures:"
        for figure, value in kept.explanation.seen.items():
            yield f"    {figure}: {value:,.4g}"
    if kept.explanation.alternatives:
        yield "  weighed and not taken:"
        for other in kept.explanation.alternatives:
            price = f"{other.usd_per_hour:.2f} USD per hour"
            yield f"    {counted(other.targets)}, {price}: {other.verdict}"


def _demand(demand: Demand) -> str:
    told = (
        f"{demand.arrivals_per_s:.2f} requests/s, {demand.prompt_tokens_per_s:,.0f} prompt tokens/s"
        f" ({demand.computed_tokens_per_s:,.0f} of them cached nowhere), "
        f"{demand.output_tokens_per_s:,.0f} output tokens/s expected"
    )
    if demand.waiting_requests:
        told += (
            f"; {demand.waiting_requests} wait with {demand.waiting_tokens:,.0f} tokens to compute,"
            f" the oldest for {demand.oldest_wait_s:.1f} s"
        )
    if demand.ttft_p90_s:
        told += f"; TTFT p90 {demand.ttft_p90_s:.2f} s, {demand.ttft_met:.1%} in time"
    return told


def _backlog(backlog: Backlog) -> str:
    return (
        f"{backlog.lines:,} lines are left, the first window ends in {backlog.first_s:,.0f} s; "
        f"all in time needs {backlog.computed_tokens_per_s:,.0f} prompt and "
        f"{backlog.output_tokens_per_s:,.0f} output tokens/s"
    )


def _pool(pool: PoolState) -> str:
    counts = f"{pool.ready} ready, {pool.starting} starting, {pool.draining} draining"
    capacity = pool.capacity
    return (
        f"{counts}, of {pool.least} to {pool.most}; {pool.running_requests} requests running, "
        f"KV cache {pool.kv_use:.0%} full; each {capacity.prefill_tokens_per_s:,.0f} prompt or "
        f"{capacity.decode_tokens_per_s:,.0f} output tokens/s (error {capacity.error:.0%}), "
        f"starts in {pool.start_s:.0f} s, {pool.usd_per_hour:.2f} USD per hour"
    )
