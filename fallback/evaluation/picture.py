"""The evaluation as a picture: accuracy by intent, reliability, speed and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def draw(models: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Writes a PNG of all models' figures, the teacher first; False without matplotlib."""
    if find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(figure)
    intents, sure, cost = figure.subplot_mosaic(
        [["intents", "intents"], ["sure", "cost"]]
    ).values()  # fmt: skip
    _draw_intents(intents, models)
    _draw_reliability(sure, models)
    _draw_cost(cost, models)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return True


def _draw_intents(axes: Any, models: Sequence[Mapping[str, Any]]) -> None:
    names = list(models[0].get("held_out", {}).get("intents", {}))
    width = 0.8 / max(1, len(models))
    for number, model in enumerate(models):
        held = model.get("held_out", {}).get("intents", {})
        places = [place + (number - (len(models) - 1) / 2) * width for place in range(len(names))]
        heights = [held.get(name, {}).get("accuracy", 0.0) for name in names]
        axes.bar(places, heights, width, label=model["system"])
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set(ylabel="held-out accuracy", ylim=(0, 1.02))
    axes.legend(fontsize=8)


def _draw_reliability(axes: Any, models: Sequence[Mapping[str, Any]]) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for model in models:
        bins = (model.get("confidence") or {}).get("bins", [])
        if bins:
            label = f"{model['system']}: ECE {model['confidence']['ece']:.3f}"
            axes.plot(
                [each["confidence"] for each in bins],
                [each["accuracy"] for each in bins],
                marker="o",
                markersize=4,
                label=label,
            )
    axes.set(xlabel="confidence (calibrated)", ylabel="share right", title="reliability")
    axes.legend(fontsize=8)


def _draw_cost(axes: Any, models: Sequence[Mapping[str, Any]]) -> None:
    first = models[0]
    names = ("parameters", "weight_bytes", "flops_per_token_context_512")
    labels = ("parameters", "bytes", "FLOPs/token", "prefill t/s", "decode t/s")
    width = 0.8 / max(1, len(models))
    for number, model in enumerate(models):
        shares = [_share(model.get(name), first.get(name)) for name in names]
        for name in ("prefill_tokens_per_s", "decode_tokens_per_s"):
            shares.append(
                _share(model.get("speed", {}).get(name), first.get("speed", {}).get(name))
            )
        places = [place + (number - (len(models) - 1) / 2) * width for place in range(len(labels))]
        axes.bar(places, shares, width, label=model["system"])
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set(title="relative to the first model", yscale="log")


def _share(value: float | None, of: float | None) -> float:
    return value / of if value and of else 0.0
