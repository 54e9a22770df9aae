"""What a run shows while it goes on: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from fallback.distill.compute import Peak
from fallback.distill.loop import Listener, Parts
from fallback.distill.plan import DistillationPlan, Progress


def utilisation(progress: Progress, peak: Peak) -> tuple[float, float]:
    """(MFU, HFU) of the run so far, shares of `peak`."""
    could = max(progress.seconds, 1e-9) * peak.flops_per_s
    return progress.work.needed / could, progress.work.executed / could


class Averages:
    """Means of loss parts since the last line; each part over the steps that had it."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, parts: Parts) -> None:
        """One step's parts."""
        for name, value in parts.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)

    def take(self) -> Parts:
        """The means so far; starts anew."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means


def line(progress: Progress, means: Parts, peak: Peak) -> str:
    """Loss parts, tokens/s, MFU and HFU."""
    mfu, hfu = utilisation(progress, peak)
    parts = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
    speed = progress.tokens / max(progress.seconds, 1e-9)
    return f"{parts}  {speed:,.0f} tokens/s  MFU {mfu:.1%}  HFU {hfu:.1%}"


@contextmanager
def shown(
    plan: DistillationPlan, progress: Progress, peak: Peak, console: Console
) -> Iterator[Listener]:
    """A listener for the loop that also keeps the history."""
    averages = Averages()
    columns = (TextColumn("distill"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Bars(
        *columns, TextColumn("{task.description}"), console=console, disable=not console.is_terminal
    )
    with bars:
        task = bars.add_task("", total=plan.steps, completed=progress.step)

        def listen(now: Progress, parts: Parts) -> None:
            averages.add(parts)
            if now.step % plan.log_every == 0 or now.step == plan.steps:
                means = averages.take()
                speed = now.tokens / max(now.seconds, 1e-9)
                now.history.append({"step": now.step, **means, "tokens_per_s": speed})
                said = line(now, means, peak)
                bars.update(task, completed=now.step, description=said)
                if not console.is_terminal:
                    console.print(f"step {now.step:6d}  {said}", markup=False, soft_wrap=True)
            else:
                bars.update(task, completed=now.step)

        yield listen
