"""What an evaluation said of a model: the registry takes only what passed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weir.errors import ConfigError


@dataclass(frozen=True, slots=True)
class GateReport:
    """``passed`` decides; ``failures`` say in words what was below the gate. ``metrics`` are kept
    with the version."""

    passed: bool
    failures: tuple[str, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.passed and self.failures:
            raise ConfigError("a gate report cannot pass and list failures")


def read_gate_report(file: Path) -> GateReport:
    """A report written by the evaluation: ``{"gate": {"passed", "failures", "metrics"}}``, or the
    inner object alone.

    Raises:
        ConfigError: no such file, or not a gate report.
    """
    try:
        data = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: no gate report: {error}") from error
    inner = data.get("gate", data) if isinstance(data, dict) else {}
    if not isinstance(inner, dict) or not isinstance(inner.get("passed"), bool):
        raise ConfigError(f"{file}: expected an object with passed: true or false")
    failures = tuple(str(text) for text in inner.get("failures") or ())
    return GateReport(inner["passed"], failures, dict(inner.get("metrics") or {}))
