"""Fit the simulator's step times to a real vLLM CPU engine, and report the simulator's error.

An engine runs in this process on a Llama of about 6 M random parameters (or --model). One set of
workloads is recorded step by step and fitted; then another one, at a light and at a heavy rate,
is measured on the engine and replayed in the simulator with the fit: TTFT, TPOT and hit rate of
both, and their differences, are what is printed. --write keeps the fit as ``laptop-cpu``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from load_tests.calibration.engine import (
    VOCABULARY,
    RealEngine,
    StepRecord,
    make_model,
    open_engine,
)
from load_tests.calibration.fit import compare, fit_timing, step_error
from load_tests.calibration.workload import Mix, make_prompts
from load_tests.report import Mark, Report, bench_parser, emit
from load_tests.sim.calibrations import LAPTOP_FILE, timing_form
from load_tests.sim.engine import EngineConfig
from load_tests.sim.timing import StepTiming

CONFIG = EngineConfig(blocks=0, block_size=32, max_batched_tokens=512, max_sequences=64)
KV_BYTES = 64 << 20
TARGET_ERROR = 0.15

FITTED = (
    Mix(24, 4.0, (16, 64), (8, 48)),
    Mix(40, 1000.0, (16, 400), (16, 96)),
    Mix(24, 1000.0, (400, 1800), (4, 32)),
    Mix(40, 1000.0, (16, 200), (64, 160), 0.5, 6, 512),
)
CHECKED = {
    "light": Mix(40, 5.0, (32, 600), (16, 64), 0.6, 12, 640),
    "heavy": Mix(100, 30.0, (32, 600), (16, 64), 0.6, 12, 640),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Record, fit, compare, print."""
    parser = bench_parser("calibrate", __doc__)
    parser.add_argument("--model", type=Path, help="a Llama's folder; default: random weights")
    parser.add_argument("--write", action="store_true", help=f"keep the fit in {LAPTOP_FILE.name}")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or make_model(Path(folder))
        with open_engine(model, CONFIG, KV_BYTES) as real:
            timing, error = _fit(real, options.seed)
            rows = [_check(real, timing, name, mix, options.seed) for name, mix in CHECKED.items()]
    rows.insert(0, {"table": "fit", "system": timing.name, **_coefficients(timing, error)})
    report = Report("calibrate", options.seed, rows, _marks(rows[1:]))
    if options.write:
        form = {"timing": timing_form(timing), "rows": rows}
        LAPTOP_FILE.write_text(json.dumps(form, indent=2) + "\n", "utf-8")
    return emit(report, options, argv)


def _fit(real: RealEngine, seed: int) -> tuple[StepTiming, float]:
    steps: list[StepRecord] = []
    real.replay(make_prompts(FITTED[0], CONFIG.block_size, VOCABULARY, seed), "warm")
    for number, mix in enumerate(FITTED):
        prompts = make_prompts(mix, CONFIG.block_size, VOCABULARY, seed + number)
        real.replay(prompts, f"fit-{number}")
        steps += real.steps
    source = (
        f"fitted on {len(steps)} steps of a vLLM CPU engine, one thread, float32, a Llama of "
        f"6 M parameters, {real.config.blocks} blocks of {real.config.block_size}"
    )
    timing = fit_timing(steps, "laptop-cpu", source)
    return timing, step_error(steps, timing)


def _check(
    real: RealEngine, timing: StepTiming, name: str, mix: Mix, seed: int
) -> dict[str, object]:
    prompts = make_prompts(mix, CONFIG.block_size, VOCABULARY, seed + 100)
    real.engine.reset_prefix_cache()
    measured = real.replay(prompts, name)
    figures = compare(prompts, measured, real.config, timing)
    return {"table": "simulated against measured", "system": name, **figures}


def _coefficients(timing: StepTiming, error: float) -> dict[str, object]:
    return {
        "fixed_us": timing.fixed_s * 1e6,
        "prefill_token_us": timing.prefill_token_s * 1e6,
        "prefill_attended_ns": timing.prefill_attended_s * 1e9,
        "decode_sequence_us": timing.decode_sequence_s * 1e6,
        "decode_context_ns": timing.decode_context_s * 1e9,
        "step_error_median": error,
    }


def _marks(rows: Sequence[dict[str, object]]) -> list[Mark]:
    marks = []
    for row in rows:
        for figure in ("ttft_p50_ms", "tpot_p50_ms", "hit_rate"):
            value = row[f"error_{figure}"]
            assert isinstance(value, float)
            name = f"{row['system']}: error of {figure.removesuffix('_ms')}"
            target = 0.02 if figure == "hit_rate" else TARGET_ERROR
            marks.append(Mark(name, abs(value), "relative", target, "lower"))
    return marks


if __name__ == "__main__":
    raise SystemExit(main())
