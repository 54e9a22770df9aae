"""Replay days of a trace with autoscaling policies: cost, requests in time, replicas, queue.

``--trace`` is a ServeGen file (rates per client, in days) or any open-loop trace that
``weir simulate`` reads. ``--policy`` is a YAML file with ``policy`` and ``params``; give several to
compare them (``weir autoscale schema`` describes the file). Requests go through the fluid model of
``weir bench autoscale``: Llama-3.3-70B on pairs of H100 or one H200, whose table at each load was
measured with the real router and admission; the policies are those that ship.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from load_tests.autoscaling.contenders import usd_per_request
from load_tests.autoscaling.days import SLO, SPILL_SHARE, STUDENT_PRICE, first_replicas, kinds_for
from load_tests.autoscaling.fleet import Outcome, PoolKind, World
from load_tests.autoscaling.fluid import Fluid
from load_tests.autoscaling.picture import draw
from load_tests.autoscaling.traces import Ticks, read_servegen
from load_tests.report import Report, Row, bench_parser, emit
from load_tests.traces import TraceError, load_trace
from weir.autoscaling.policy_file import read_policy
from weir.errors import ConfigError
from weir.planner.serving import Lengths

_TICK_S = 15.0
_DAY_S = 86_400.0


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = bench_parser("autoscaling", __doc__)
    options.prog = "weir autoscale simulate"
    options.add_argument("--trace", type=Path, required=True)
    options.add_argument("--policy", type=Path, action="append", required=True, metavar="YAML")
    options.add_argument("--from-day", type=float, default=0.0, help="begin there")
    options.add_argument("--days", type=float, default=2.0, help="so many of them")
    options.add_argument("--times", type=float, default=1.0, help="the trace's rate, multiplied")
    options.add_argument("--batch-share", type=float, default=0.0, help="of a ServeGen trace")
    options.add_argument("--batch-within-h", type=float, default=6.0, help="that work has so long")
    options.add_argument(
        "--cheap-hours",
        nargs=3,
        type=float,
        metavar=("FROM", "UNTIL", "SHARE"),
        help="hours of the day, from the first day's beginning, in which replicas cost that share",
    )
    options.add_argument("--accelerator", choices=["H100", "H200", "all"], default="all")
    options.add_argument("--spot", action="store_true", help="spot replicas in two regions, too")
    options.add_argument("--student", action="store_true", help="2 %% of requests may spill to one")
    options.add_argument("--picture", type=Path, metavar="FILE", help=".png or .svg")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Replay each policy, print a row for each, and draw them."""
    options = parser().parse_args(argv)
    try:
        policies = [(path, *read_policy(path)) for path in options.policy]
        ticks = read_ticks(options)
    except (ConfigError, TraceError, OSError) as error:
        print(f"weir autoscale simulate: {error}", file=sys.stderr)
        return 2
    kinds = _kinds(ticks, options)
    runs: list[tuple[str, Outcome]] = []
    rows: list[Row] = []
    for path, name, policy in policies:
        found = Fluid(_world(kinds, options), policy, ticks).run(first_replicas(kinds[0], ticks))
        runs.append((path.stem, found))
        rows.append(_row(path.stem, name, found, ticks))
    if options.picture is not None:
        title = f"{options.trace.name.split('.')[0]}, {options.days:g} days"
        draw(runs, ticks, title, options.picture)
    return emit(Report("autoscaling", options.seed, rows, []), options, argv)


def read_ticks(options: argparse.Namespace) -> Ticks:
    """The part of the trace that is asked for.

    Raises:
        TraceError: the file is none, or has nothing there.
    """
    if not options.trace.exists():
        raise TraceError(f"{options.trace}: no such file")
    if options.trace.name.startswith("servegen"):
        ticks = read_servegen(options.trace, options.batch_share, options.seed, _TICK_S)
    else:
        ticks = _binned(options.trace)
    first_s = options.from_day * _DAY_S
    ticks = ticks.part(first_s, first_s + options.days * _DAY_S)
    if not len(ticks) or not ticks.urgent_requests.any():
        raise TraceError(f"{options.trace}: nothing arrives in the days that were asked for")
    return Ticks(ticks.tick_s, *(column * options.times for column in ticks.columns))


def _binned(path: Path) -> Ticks:
    """Requests with their own times, added up. What a cache would hold is not taken off."""
    trace = load_trace(path, None)
    if trace.closed_loop:
        raise TraceError(f"{path}: has sessions and no times of arrival; it cannot be replayed")
    start_s = trace.requests[0].arrival_s
    sums = np.zeros((3, int(trace.span_s / _TICK_S) + 1))
    for request in trace.requests:
        tick = int((request.arrival_s - start_s) / _TICK_S)
        sums[:, tick] += (1, request.prompt_tokens, request.output_tokens)
    nothing = np.zeros(sums.shape[1])
    return Ticks(_TICK_S, sums[0], sums[1], sums[2], nothing, nothing, nothing)


def _kinds(ticks: Ticks, options: argparse.Namespace) -> tuple[PoolKind, ...]:
    """The cheapest kind first."""
    known = kinds_for(Lengths(ticks.mean_prompt, ticks.mean_output, 0.0, 1.5))
    chosen = [
        kind
        for kind in known
        if options.accelerator in ("all", kind.state.accelerator)
        and (options.spot or kind.state.market == "on_demand")
    ]
    chosen.sort(key=lambda kind: (kind.state.market == "spot", usd_per_request(kind)))
    return tuple(_priced(kind, options.cheap_hours) for kind in chosen)


def _priced(kind: PoolKind, cheap: Sequence[float] | None) -> PoolKind:
    """With a price for each hour of the day, where some are cheaper."""
    if cheap is None:
        return kind
    first, until, share = int(cheap[0]), int(cheap[1]), cheap[2]
    usd, night = kind.state.usd_per_hour, {(first + n) % 24 for n in range((until - first) % 24)}
    by_hour = tuple(usd * (share if hour in night else 1.0) for hour in range(24))
    return replace(kind, state=replace(kind.state, usd_by_hour=by_hour))


def _world(kinds: tuple[PoolKind, ...], options: argparse.Namespace) -> World:
    return World(
        kinds,
        SLO.ttft_s,
        SLO.tpot_s,
        batch_within_s=options.batch_within_h * 3600.0,
        spill_share=SPILL_SHARE if options.student else 0.0,
        spill_usd=STUDENT_PRICE * usd_per_request(kinds[0]),
        seed=options.seed,
    )


def _row(file: str, policy: str, found: Outcome, ticks: Ticks) -> dict[str, Any]:
    replicas = [moment.replicas / max(1, moment.ticks) for moment in found.moments]
    return {
        "system": file,
        "policy": policy,
        "days": len(ticks) * ticks.tick_s / _DAY_S,
        "usd": found.usd,
        "met_share": found.met,
        "slo_minutes_lost": found.minutes_lost,
        "replica_hours": found.replica_hours,
        "replicas_mean": sum(replicas) / len(replicas),
        "replicas_most": max(replicas),
        "flaps_per_day": found.flaps / (found.seconds / _DAY_S),
        "late_batch_share": found.late_batch_share if found.batch else None,
        "spilt_share": found.spilt / found.urgent if found.urgent else None,
        "interrupted": found.interrupted,
    }


if __name__ == "__main__":
    raise SystemExit(main())
