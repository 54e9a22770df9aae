"""Routing compared live: the same conversations before two real vLLM replicas and each router.

Sessions in a closed loop with think time: a store's system prompt, then turns that repeat the
whole conversation. Their working set is about twice what one replica's KV cache holds, so where a
turn goes decides whether its prefix is there. All systems share model, engine settings and
machine; each is started afresh, alone. weir runs with three policies, so that what routing gains
can be told from what its data plane gains; SGLang's router stands before two vLLM servers; Ray
Serve LLM routes with its own PrefixCacheAffinityRouter.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from load_tests.live.sessions import Outcome, Plan, Texts, Turn, converse
from load_tests.live.systems import System, all_systems
from load_tests.loadgen import chat_bodies
from load_tests.report import (
    Mark,
    Report,
    absent_row,
    bench_parser,
    emit,
    interleave,
    median,
    percentile,
)
from load_tests.servers import (
    EngineWorkload,
    StartError,
    Unavailable,
    engine_workload,
    start,
    unwind_on_sigterm,
)
from load_tests.servers.choosing import chosen
from load_tests.servers.first_answer import await_answer

Figures = Mapping[str, float | None]
PATIENCE_S = 120.0
PEERS = ("sglang", "sglang-rr", "ray-prefix")
NOTES = (
    "figures are medians over rounds; the routers' hit rate is cached over all prompt tokens",
    "Dynamo, llm-d and AIBrix need their own stacks (etcd, NATS, Kubernetes) and are compared in "
    "the simulator only (weir bench routing)",
    "a live hit rate has no oracle: the ceiling is the share of tokens that a session repeats",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks, 2 for a wrong option."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        workload = engine_workload(None)
        systems = chosen(all_systems(workload, options.peers_venv), options.only)
    except (Unavailable, ValueError) as error:
        parser.error(str(error))
    unwind_on_sigterm()
    plan = Plan(sessions=options.sessions)
    window_s = options.window_s or (8.0 if options.quick else 25.0)
    rounds = options.rounds or (1 if options.quick else 2)
    found: dict[str, list[Figures]] = defaultdict(list)
    missing: dict[str, str] = {}
    for number, system in interleave(systems, rounds):
        try:
            found[system.key].append(
                _measure(system, workload, plan, options.seed + number, window_s)
            )
        except (StartError, Unavailable) as error:
            missing[system.key] = str(error)
            _say(f"{system.title}: {error}")
    rows = [_row(system, found[system.key], missing) for system in systems]
    return emit(Report("live", options.seed, rows, _marks(found, missing), NOTES), options, argv)


def _measure(
    system: System, workload: EngineWorkload, plan: Plan, seed: int, window_s: float
) -> Figures:
    """One system in one round.

    Raises:
        StartError: it did not start, answers nothing, or failed more than one turn in a hundred.
        Unavailable: it is not installed.
    """
    texts = Texts(plan, seed, workload.token_counter())
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        launches, target = system.launch(Path(folder))
        with start(launches, target) as server:
            await_answer(target, chat_bodies(workload.served_name, ["hello"], 2)[0], PATIENCE_S)
            outcome = asyncio.run(
                converse(
                    server.target,
                    workload.served_name,
                    plan,
                    texts,
                    seed,
                    warmup_s=window_s / 3,
                    window_s=window_s,
                )
            )
    if not outcome.turns or len(outcome.faults) > len(outcome.turns) / 100:
        raise StartError(f"{len(outcome.faults)} turns failed", "\n".join(outcome.faults[:1]))
    figures = figures_of(outcome)
    _say(
        f"{system.title}: {figures['turns_per_s']:.1f} turns/s, hit rate {figures['hit_rate']}, "
        f"TTFT p50 {figures['ttft_ms_p50']:.0f} ms ({time.monotonic() - started_s:.0f} s)"
    )
    return figures


def figures_of(outcome: Outcome) -> Figures:
    """The figures of one run (``hit_rate`` None where the server does not tell)."""
    turns = outcome.turns
    ttft_ms = [1000 * (turn.first_s - turn.sent_s) for turn in turns]
    prompt = sum(turn.prompt_tokens for turn in turns)
    cached = sum(turn.cached_tokens for turn in turns)
    return {
        "turns_per_s": len(turns) / outcome.window_s,
        "hit_rate": cached / prompt if cached and prompt else None,
        "ttft_ms_p50": percentile(ttft_ms, 50),
        "ttft_ms_p90": percentile(ttft_ms, 90),
        "ttft_ms_p99": percentile(ttft_ms, 99),
        "tpot_ms_p50": percentile([_tpot_ms(turn) for turn in turns], 50),
        "prompt_tokens_mean": prompt / len(turns),
        "failed_turns": float(len(outcome.faults)),
    }


def _tpot_ms(turn: Turn) -> float:
    return 1000 * (turn.done_s - turn.first_s) / max(1, turn.output_tokens - 1)


def _row(
    system: System, rounds: Sequence[Figures], missing: Mapping[str, str]
) -> Mapping[str, Any]:
    if not rounds:
        return absent_row(system.title, missing.get(system.key, "not measured in this run"))
    return {"system": system.title, "rounds": len(rounds), **_medians(rounds)}


def _medians(rounds: Sequence[Figures]) -> dict[str, float | None]:
    return {
        key: median([value for each in rounds if (value := each[key]) is not None])
        for key in rounds[0]
    }


def _marks(found: Mapping[str, Sequence[Figures]], missing: Mapping[str, str]) -> list[Mark]:
    """weir against the best peer, and its policy against the blind ones on the same data plane."""
    every = {key: _medians(rounds) for key, rounds in found.items() if rounds}
    peers = [every[key] for key in PEERS if key in every]
    blind = [every[key] for key in ("weir-rr", "weir-lot") if key in every]
    return [
        _ratio("weir / best peer, turns per second", "turns_per_s", every, peers, "higher"),
        _ratio("weir / best peer, hit rate", "hit_rate", every, peers, "higher"),
        _ratio("weir / best peer, TTFT p50", "ttft_ms_p50", every, peers, "lower"),
        _ratio("weir / best peer, TTFT p99", "ttft_ms_p99", every, peers, "lower"),
        _ratio("weir / its blind policies, hit rate", "hit_rate", every, blind, "higher"),
        _ratio("weir / its blind policies, TTFT p50", "ttft_ms_p50", every, blind, "lower"),
    ]


def _ratio(
    name: str,
    figure: str,
    every: Mapping[str, Figures],
    others: Sequence[Figures],
    better: Any,
) -> Mark:
    own = every.get("weir", {}).get(figure)
    rivals = [value for other in others if (value := other[figure])]
    if own is None or not rivals:
        return Mark(name, None, "x", 1.0, better, "weir or its rivals were not measured")
    best = max(rivals) if better == "higher" else min(rivals)
    return Mark(name, own / best, "x", 1.0, better)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("live", __doc__)
    parser.add_argument("--only", metavar="KEYS", help="e.g. weir,sglang (default: all)")
    parser.add_argument("--rounds", type=int, help="default 2, quick 1")
    parser.add_argument("--window-s", type=float, help="default 25, quick 8")
    parser.add_argument("--sessions", type=int, default=Plan().sessions, help="default %(default)s")
    parser.add_argument(
        "--peers-venv", type=Path, metavar="PYTHON", help="Python of the peers' environment"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
