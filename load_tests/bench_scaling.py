"""Real replicas come and go under load: 0 to 1, 1 to 2, a spot notice, 2 to 1 amid 100 streams.

Starts a platform with one model in two pools of one vLLM replica each, both of which may sleep, on
free ports. In turn: a request for the model that sleeps; load until there are two replicas; a
notice that the spot replica's machine is about to go, while 100 answers are generated; and, once
nothing more arrives, one replica less while 100 answers are generated. Every answer has to have
every token.

What decides is weir's policy with what it has learned of the engines here, so the times say how the
parts work together, not how fast a machine with accelerators would be.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from load_tests.report import Mark, Report, bench_parser, emit
from load_tests.scaling.live import Course, Live, Step, settings_of
from load_tests.servers import unwind_on_sigterm
from load_tests.servers.user_platform import user_platform
from load_tests.startup.once import free_ports
from weir.settings import load_settings

CAPACITY: dict[str, Any] = {
    "prefill_tokens_per_s": 4000.0,
    "decode_tokens_per_s": 600.0,
    "usable": 0.4,
    "start_s": 30.0,
}
STUB: dict[str, Any] = {
    "engine": {"mode": "stub", "args": {"interval_ms": 50, "max_model_len": 8192}},
    "capacity": {
        "prefill_tokens_per_s": 2000.0,
        "decode_tokens_per_s": 1000.0,
        "learned": False,
        "start_s": 10.0,
    },
}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks."""
    parser = bench_parser("scaling", __doc__)
    parser.add_argument("--stub", action="store_true", help="replicas without a model")
    options = parser.parse_args(argv)
    unwind_on_sigterm()
    if options.stub:
        course = Course(tokens=1200, clients=64, short_tokens=100)
    else:
        course = Course(streams=40, tokens=600) if options.quick else Course()
    live = run(STUB if options.stub else engine(), course)
    rows = [step.row() for step in live.steps]
    report = Report("scaling", options.seed, rows, marks(live.steps, len(live.changes)))
    return emit(report, options, argv)


def engine() -> dict[str, Any]:
    """The teacher's engine as the laptop's profile has it."""
    teacher = load_settings("laptop", None).models[0]
    return {"engine": teacher.engine.model_dump(mode="json"), "capacity": CAPACITY}


def run(engine: dict[str, Any], course: Course) -> Live:
    """All steps, on a platform of its own."""
    with tempfile.TemporaryDirectory(prefix="weir-scaling-") as folder:
        home, ports = Path(folder), free_ports()
        config, notice = home / "bench.yaml", home / "notice"
        config.write_text(yaml.safe_dump(settings_of(engine, notice, ports)), "utf-8")
        with user_platform(home, config) as said:
            secrets = json.loads((home / "secrets.json").read_text("utf-8"))
            live = Live(
                said["url"].removesuffix("/v1"),
                said["key"],
                said["admin_key"],
                secrets["internal_token"],
                notice,
                ports["redis"]["port"],
                course,
            )
            asyncio.run(_run(live))
            return live


async def _run(live: Live) -> None:
    try:
        await live.run()
    except (TimeoutError, AssertionError) as error:
        seen = [step.name for step in live.steps]
        print(f"broken off after {seen}: {error!r}", file=sys.stderr, flush=True)


def marks(steps: Sequence[Step], changes: int) -> list[Mark]:
    """What the issue asks of a live platform."""
    names = ("0 to 1", "1 to 2", "spot notice", "2 to 1")
    by_name = {step.name: step for step in steps}
    found = []
    for name in names:
        step = by_name.get(name)
        lost = step.row()["failed"] if step is not None else None
        reason = "" if step is not None else "the step was not reached"
        found.append(Mark(f"requests lost, {name}", lost, "requests", 0, "lower", reason=reason))
    for name in names[2:]:
        step = by_name.get(name)
        moved = step.moved if step is not None and step.in_time else None
        reason = "" if moved is not None else "no answer was under way at the time"
        found.append(Mark(f"answers moved, {name}", moved, "streams", 1, "higher", reason=reason))
    found.append(Mark("changes explained", changes, "decisions", 3, "higher"))
    return found


if __name__ == "__main__":
    sys.exit(main())
