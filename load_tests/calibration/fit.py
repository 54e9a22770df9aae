"""Least squares with coefficients that cannot be negative, over recorded steps."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy

from load_tests.calibration.engine import Measured, StepRecord
from load_tests.calibration.workload import Prompt
from load_tests.sim.engine import EngineConfig
from load_tests.sim.figures import Slo, Window, figures
from load_tests.sim.system import BaseSystem
from load_tests.sim.timing import StepTiming
from load_tests.sim.world import FleetConfig, World
from load_tests.traces import Trace


def fit_timing(steps: Sequence[StepRecord], name: str, source: str) -> StepTiming:
    """Minimise the relative error. A coefficient that would be negative is taken out, and the
    rest is fitted again; the slowest 1 % of the steps (pauses of the machine) are left out."""
    ordered = sorted(steps, key=_seconds_per_work)
    kept = ordered[: max(5, len(ordered) * 99 // 100)]
    rows = numpy.array([[1.0, s.tokens, s.attended, s.sequences, s.context] for s in kept])
    times = numpy.array([s.seconds for s in kept])
    weighted = rows / times[:, None]
    active = list(range(rows.shape[1]))
    while True:
        scale = numpy.abs(weighted[:, active]).max(axis=0)
        scale[scale == 0] = 1.0
        found, *_ = numpy.linalg.lstsq(
            weighted[:, active] / scale, numpy.ones(len(kept)), rcond=None
        )
        found = found / scale
        if (found >= 0).all() or len(active) == 1:
            break
        del active[int(numpy.argmin(found * scale))]
    values = [0.0] * rows.shape[1]
    for place, value in zip(active, found, strict=True):
        values[place] = max(0.0, float(value))
    fixed, token, pair, sequence, context = values
    return StepTiming(name, fixed, token, pair, sequence, context, source)


def _seconds_per_work(step: StepRecord) -> float:
    return step.seconds / (1 + step.tokens / 16 + step.sequences / 8)


def step_error(steps: Sequence[StepRecord], timing: StepTiming) -> float:
    """Median relative error of single steps."""
    return statistics.median(
        abs(timing.step_s(s.tokens, s.attended, s.sequences, s.context) / s.seconds - 1)
        for s in steps
    )


class _One(BaseSystem):
    """The only replica takes everything."""

    def arrive(self, request: object) -> None:
        self.fleet.dispatch(request, 0)  # type: ignore[arg-type]


def compare(
    prompts: Sequence[Prompt],
    measured: Sequence[Measured],
    config: EngineConfig,
    timing: StepTiming,
) -> dict[str, float]:
    """The same requests on the simulated engine: measured and simulated figures, and errors."""
    trace = Trace("recorded", "recorded", config.block_size, tuple(p.trace for p in prompts))
    world = World(_One(), FleetConfig(1, config, timing), seed=0)
    world.run_open(trace)
    simulated = figures(world, Slo(1e9, 1e9), Window(0.0, 1e9))
    real = _figures(prompts, measured)
    out: dict[str, float] = {}
    for key, value in real.items():
        ours = float(simulated[key] or 0.0)
        out[f"measured_{key}"] = value
        out[f"simulated_{key}"] = ours
        error = ours - value if key == "hit_rate" else ours / value - 1 if value else 0.0
        out[f"error_{key}"] = error
    return out


def _figures(prompts: Sequence[Prompt], measured: Sequence[Measured]) -> dict[str, float]:
    ttft = sorted(m.ttft_s * 1e3 for m in measured)
    tpot = sorted(
        (m.finish_s - m.ttft_s) * 1e3 / (p.trace.output_tokens - 1)
        for m, p in zip(measured, prompts, strict=True)
        if p.trace.output_tokens > 1
    )
    tokens = sum(p.trace.prompt_tokens for p in prompts)
    return {
        "ttft_p50_ms": statistics.median(ttft),
        "ttft_p90_ms": ttft[len(ttft) * 9 // 10],
        "tpot_p50_ms": statistics.median(tpot),
        "hit_rate": sum(m.cached_tokens for m in measured) / tokens,
    }
