"""What one replica does as its rate grows, and what the options cost."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from weir.planner.plan import Plan, engine_of
from weir.planner.serving import balance

_POINTS = 60


def draw_plan(plan: Plan, file: Path) -> bool:
    """Write a PNG; False without matplotlib or without an option."""
    best = plan.best
    if best is None or find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_rates(plan, left)
    options = plan.options[:8][::-1]
    right.barh([o.name for o in options], [o.usd_per_hour for o in options], color="#4477aa")
    right.set_xlabel("USD an hour")
    right.set_title("Ways to do it", loc="left", fontsize=10)
    right.tick_params(labelsize=8)
    figure.savefig(file, dpi=120)
    return True


def _draw_rates(plan: Plan, axes: object) -> None:
    """TTFT and TPOT over the rate, of a replica of the cheapest option that has no pools."""
    question, slo = plan.question, plan.question.slo
    option = next((o for o in plan.options if o.state is not None), None)
    if option is None or option.state is None:
        return
    engine = engine_of(question, option.accelerator, option.layout)
    rates = [option.state.rate_per_s * 1.25 * n / _POINTS for n in range(1, _POINTS + 1)]
    states = [(r, balance(engine, question.lengths, r, slo.share)) for r in rates]
    known = [(rate, state) for rate, state in states if state is not None]
    plot = axes.plot  # type: ignore[attr-defined]
    plot([r for r, _ in known], [s.ttft_tail_s * 1e3 for _, s in known], "#ee6677", label="TTFT")
    plot([r for r, _ in known], [s.tpot_s * 1e3 for _, s in known], "#4477aa", label="TPOT")
    line = axes.axhline  # type: ignore[attr-defined]
    line(slo.ttft_s * 1e3, color="#ee6677", linestyle=":", label="limits")
    line(slo.tpot_s * 1e3, color="#4477aa", linestyle=":")
    axes.axvline(option.state.rate_per_s, color="#888888", linewidth=0.8)  # type: ignore[attr-defined]
    axes.set(yscale="log", xlabel="requests per second of one replica", ylabel="ms")  # type: ignore[attr-defined]
    axes.set_title(f"One replica ({option.accelerator.name})", loc="left", fontsize=10)  # type: ignore[attr-defined]
    axes.legend(fontsize=8)  # type: ignore[attr-defined]
