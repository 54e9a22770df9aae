"""Fifty LoRA adapters over two replicas with eight slots each: who goes where, and who gets whose.

The platform serves the teacher with 50 random adapters, whose popularity falls as 1, 1/2, 1/3, ...;
one request in nine wants the model without any. Closed loop. First each pair of model and prompt is
answered alone, one at a time; then 2,000 requests come, with routing as shipped (it knows where
adapters are loaded) and with round-robin, in turn, each on a fresh platform. An answer that is
another adapter's, or the model's own, to the same prompt is mixed up.

``--virtual``: the same traffic on stand-ins for engines, in virtual time, with the router and the
slots that ship (:mod:`load_tests.lora.virtual`). It says who waits for what, and mixes nothing up.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load_tests.loadgen import Target, prompt_texts
from load_tests.lora.asking import Question, ask_all, count_loads, draw, equal, mixed_up
from load_tests.lora.files import write_adapters
from load_tests.report import Mark, Report, bench_parser, emit, percentile
from load_tests.servers import EngineWorkload, engine_workload, start, unwind_on_sigterm
from load_tests.servers.first_answer import await_answer
from load_tests.servers.weir_platform import weir_platform

AWARE, ROUND_ROBIN = "adapter-aware", "round-robin"
POLICIES = {AWARE: "weir", ROUND_ROBIN: "round-robin"}
PROMPT_TOKENS = 120
_PATIENCE_S = 240.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a run."""

    adapters: int
    slots: int
    requests: int
    streams: int
    prompts: int
    tokens: int
    rounds: int
    seed: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; exit code 0 when the bench ran, whatever the marks."""
    options = _parser().parse_args(argv)
    unwind_on_sigterm()
    plan = _plan(options)
    if options.virtual:
        rows = _virtual_rows(plan)
        report = Report("lora", plan.seed, rows, compared(rows), _notes(plan))
        return emit(report, options, argv)
    workload = engine_workload(options.model)
    rows = []
    with tempfile.TemporaryDirectory(prefix="weir-lora-") as folder:
        files = write_adapters(workload.model, Path(folder), plan.adapters, plan.seed)
        for number in range(plan.rounds):
            for system in POLICIES:
                rows.append({"round": number, **_measure(workload, files, system, plan)})
    return emit(Report("lora", plan.seed, rows, marks_of(rows), _notes(plan)), options, argv)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("lora", __doc__)
    parser.add_argument("--model", type=Path, help="folder of a Llama; default: the teacher")
    parser.add_argument("--requests", type=int, help="default 2000, quick 120")
    parser.add_argument("--streams", type=int, default=16, help="at a time; default %(default)s")
    parser.add_argument("--rounds", type=int, help="default 3, quick 1")
    parser.add_argument("--virtual", action="store_true", help="without engines, in virtual time")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    quick = options.quick
    return Plan(
        adapters=12 if quick else 50,
        slots=3 if quick else 8,
        requests=options.requests or (120 if quick else 2000),
        streams=options.streams,
        prompts=2 if quick else 4,
        tokens=16,
        rounds=options.rounds or (1 if quick else 3),
        seed=options.seed,
    )


def _virtual_rows(plan: Plan) -> list[dict[str, Any]]:
    """Each policy on the same traffic; a round has a seed of its own."""
    from load_tests.lora.virtual import Traffic, play  # imports vLLM, as slots do

    rows = []
    for number in range(plan.rounds):
        traffic = Traffic(
            plan.adapters,
            plan.slots,
            requests=plan.requests,
            streams=plan.streams,
            prompts=plan.prompts,
            prompt_tokens=PROMPT_TOKENS,
            tokens=plan.tokens,
            seed=plan.seed + number,
        )
        for system, policy in POLICIES.items():
            rows.append({"round": number, "system": system, **play(policy, traffic).row()})
    return rows


def _measure(
    workload: EngineWorkload, files: Sequence[Path], system: str, plan: Plan
) -> dict[str, Any]:
    """One system, started and ended."""
    changes: dict[str, Any] = {
        "adapters": [{"name": path.name, "source": str(path)} for path in files],
        "adapter_slots": plan.slots,
        "routing": {"policy": POLICIES[system]},
    }
    with tempfile.TemporaryDirectory(prefix="weir-lora-") as folder:
        launches, target = weir_platform(workload, 2, Path(folder), **changes)
        token = launches[0].env["WEIR_INTERNAL_TOKEN"]
        with start(launches, target):
            await_answer(target, _first_body(workload), _PATIENCE_S)
            return {"system": system, **asyncio.run(_ask(workload, target, token, plan))}


def _first_body(workload: EngineWorkload) -> bytes:
    name = workload.served_name.encode()
    said = b'[{"role": "user", "content": "hello"}]'
    return b'{"model": "%s", "messages": %s, "max_tokens": 2, "stream": true}' % (name, said)


async def _ask(workload: EngineWorkload, target: Target, token: str, plan: Plan) -> dict[str, Any]:
    name = workload.served_name
    models = [f"{name}:a{number:02d}" for number in range(plan.adapters)]
    models.insert(1, name)
    prompts = prompt_texts(plan.seed, plan.prompts, PROMPT_TOKENS, workload.token_counter())
    every = [Question(model, prompt) for model in models for prompt in prompts]
    single = await ask_all(target, every, 1, plan.tokens)
    if broken := next((answer.error for answer in single if answer.error), ""):
        raise SystemExit(f"weir bench lora: a request alone failed: {broken}")
    alone = {answer.question: answer.text for answer in single}
    before = await count_loads(target, token)
    questions = draw(models, prompts, plan.requests, plan.seed)
    answers = await ask_all(target, questions, plan.streams, plan.tokens)
    await asyncio.sleep(0.2)  # replicas tell what is new every 50 ms
    loads = await count_loads(target, token) - before
    ttft_ms = [1000.0 * answer.ttft_s for answer in answers if not answer.error]
    asked = sum(question.model != name for question in questions)
    return {
        "requests": len(answers),
        "errors": sum(bool(answer.error) for answer in answers),
        "ttft_p50_ms": percentile(ttft_ms, 50),
        "ttft_p99_ms": percentile(ttft_ms, 99),
        "loads_per_adapter_request": loads / asked,
        "mixed_up": mixed_up(answers, alone),
        "equal_to_alone_ratio": equal(answers, alone),
        "distinct_answers_ratio": len(set(alone.values())) / len(alone),
    }


def marks_of(rows: Sequence[dict[str, Any]]) -> list[Mark]:
    """Adapter-aware over round-robin, medians over the rounds; and what was mixed up."""
    mixed = float(sum(row["mixed_up"] for row in rows))
    failed = float(sum(row["errors"] for row in rows))
    return [
        *compared(rows),
        Mark("answers mixed up", mixed, "answers", 0.0, "lower"),
        Mark("errors", failed, "answers", 0.0, "lower"),
    ]


def compared(rows: Sequence[dict[str, Any]]) -> list[Mark]:
    """Adapter-aware over round-robin, medians over the rounds."""

    def median(system: str, figure: str) -> float:
        return float(statistics.median(row[figure] for row in rows if row["system"] == system))

    marks = []
    for figure, name in (
        ("ttft_p99_ms", "TTFT p99, adapter-aware over round-robin"),
        ("loads_per_adapter_request", "loads per request, adapter-aware over round-robin"),
    ):
        other = median(ROUND_ROBIN, figure)
        value = median(AWARE, figure) / other if other else None
        reason = None if other else "round-robin had none"
        marks.append(Mark(name, value, "x", 1.0, "lower", reason))
    return marks


def _notes(plan: Plan) -> list[str]:
    return [
        f"{plan.adapters} adapters, 2 replicas of {plan.slots} slots, {plan.streams} streams",
        "equal_to_alone_ratio: what differs and is nobody else's answer differs by how the engine "
        "batches",
    ]


if __name__ == "__main__":
    sys.exit(main())
