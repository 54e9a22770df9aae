"""What an alert is, whichever kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

#: ``page``: somebody is called now. ``ticket``: somebody looks on a working day.
Severity = Literal["page", "ticket"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. ``for_s``: so long the expression has to hold. ``summary`` and ``description``
    may have Prometheus' templates. Its page is docs/runbooks/NAME.md."""

    name: str
    severity: Severity
    expression: str
    summary: str
    description: str
    for_s: int = 0
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def rule(self, runbooks: str) -> dict[str, Any]:
        """As Prometheus has it. ``runbooks``: where the pages are, with a slash at the end."""
        rule: dict[str, Any] = {"alert": self.name, "expr": self.expression}
        if self.for_s:
            rule["for"] = duration(self.for_s)
        rule["labels"] = {"severity": self.severity, **self.labels}
        rule["annotations"] = {
            "summary": self.summary,
            "description": self.description,
            "runbook_url": f"{runbooks}{self.name}.md",
        }
        return rule


def duration(seconds: int) -> str:
    """As Prometheus writes a time."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
