"""A picture of the loss: a PNG where matplotlib is there, lines of text where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_BARS: Final = "▁▂▃▄▅▆▇█"
_HIDDEN: Final = ("step", "tokens_per_s", "rate")


def curves(history: Sequence[dict[str, float]]) -> dict[str, list[tuple[float, float]]]:
    """(step, value) of each loss part that occurs in `history`."""
    names = list(dict.fromkeys(k for point in history for k in point))
    return {
        name: [(point["step"], point[name]) for point in history if name in point]
        for name in names
        if name not in _HIDDEN
    }


def text_picture(history: Sequence[dict[str, float]], width: int = 60) -> str:
    """One line of bars per loss part, first and last value beside it."""
    lines = []
    for name, points in curves(history).items():
        values = [value for _, value in points]
        every = max(1, -(-len(values) // width))
        means = [sum(values[n : n + every]) / len(values[n : n + every])
                 for n in range(0, len(values), every)]  # fmt: skip
        low, high = min(means), max(means)
        scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
        bars = "".join(_BARS[round((value - low) * scale)] for value in means)
        lines.append(f"{name:>10} {values[0]:8.3f} {bars} {values[-1]:.3f}")
    return "\n".join(lines)


def draw_losses(history: Sequence[dict[str, float]], path: Path, title: str) -> bool:
    """Writes a PNG; False where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, points in curves(history).items():
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1.2)
    axes.set(xlabel="step", ylabel="nats per token", title=title, yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return True
