"""The object a bench prints, and the rule for when a mark is met."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from load_tests.report.machine import Machine, this_machine
from load_tests.report.stats import round_figures
from weir import __version__

Row = Mapping[str, Any]
"""``system`` and flat figures with their units in the names.

Two keys are understood by the printer: ``table`` groups rows that belong into one table, and
``reason`` says why a row's figures are missing.
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """A target, and what was measured.

    ``value`` None means it could not be measured; then ``reason`` must say why, and the mark
    is not met.
    """

    name: str
    value: float | None
    unit: str
    target: float
    better: Literal["lower", "higher"]
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise ValueError(f"{self.name}: better must be lower or higher, not {self.better!r}")
        if self.value is None and not self.reason:
            raise ValueError(f"{self.name}: a mark without a value must give a reason")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.name}: {self.value} is no measurement")

    @property
    def met(self) -> bool:
        """The value is on the target's good side, or on the target itself."""
        if self.value is None:
            return False
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; ``met`` is decided on the exact value, the value is printed rounded."""
        form: dict[str, Any] = {
            "name": self.name,
            "value": round_figures(self.value),
            "unit": self.unit,
            "target": self.target,
            "better": self.better,
            "met": self.met,
        }
        if self.reason:
            form["reason"] = self.reason
        return form


@dataclass(frozen=True, slots=True)
class Report:
    """One bench's outcome. ``notes`` are sentences a reader needs in order not to be misled."""

    bench: str
    seed: int
    rows: Sequence[Row]
    marks: Sequence[Mark]
    notes: Sequence[str] = ()
    command: str | None = None
    machine: Machine = field(default_factory=this_machine)
    version: str = __version__

    def __post_init__(self) -> None:
        for row in self.rows:
            if "system" not in row:
                raise ValueError(f"{self.bench}: a row must name its system: {dict(row)}")
        names = [mark.name for mark in self.marks]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{self.bench}: the mark {twice!r} is there twice")

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, keys in reading order."""
        form: dict[str, Any] = {
            "bench": self.bench,
            "version": self.version,
            "machine": self.machine.as_dict(),
            "seed": self.seed,
        }
        if self.command:
            form["command"] = self.command
        form["rows"] = [{key: round_figures(value) for key, value in r.items()} for r in self.rows]
        form["marks"] = [mark.as_dict() for mark in self.marks]
        if self.notes:
            form["notes"] = list(self.notes)
        return form


def absent_row(system: str, reason: str, figures: Iterable[str] = ()) -> dict[str, Any]:
    """The row of a system that could not be measured: its figures are null, with the reason."""
    return {"system": system, **dict.fromkeys(figures), "reason": reason}
