"""Writes the table of metrics into docs/observability.md: ``python -m k8s.metrics_table``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry

from weir.metrics import TIER_METRICS, ControlMetrics, GatewayMetrics

PAGE = Path(__file__).resolve().parents[1] / "docs" / "observability.md"
BEGIN, END = "<!-- metrics: made by python -m k8s.metrics_table -->", "<!-- /metrics -->"


def table() -> str:
    """All metrics: what each gateway counts, what is told once, what engines add."""
    metrics = GatewayMetrics()
    parts = (
        ("Of each gateway, with the label `gateway`", _rows(metrics.registry)),
        ("Told once: what all gateways see alike", _rows(metrics.shared)),
        ("Told once: by the control process", _rows(ControlMetrics().registry)),
        ("Of each engine, with the label `replica`, beside vLLM's own `vllm:*`", _tiers()),
    )
    lines: list[str] = []
    for title, rows in parts:
        lines += ["", f"**{title}**", "", "| metric | labels | meaning |", "|---|---|---|", *rows]
    return "\n".join(lines[1:])


def page(text: str) -> str:
    """The page with the table as it is now."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}"


def _rows(registry: CollectorRegistry) -> Iterator[str]:
    for metric in registry._collector_to_names:
        (family,) = metric.collect()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if family.type in ("histogram", "summary"):
            name += " (" + family.type + ")"
        labels = getattr(metric, "_labelnames", ())
        yield _row(name, labels, family.documentation)


def _tiers() -> Iterator[str]:
    for name, each in TIER_METRICS.items():
        yield _row(name + "_total" * each.counts, each.labels, each.documentation)


def _row(name: str, labels: tuple[str, ...], meaning: str) -> str:
    name, _, kind = name.partition(" ")
    named = ", ".join(f"`{label}`" for label in labels)
    return f"| `{name}`{f' {kind}' if kind else ''} | {named} | {meaning.replace('|', '/')} |"


def main() -> int:
    """Write it."""
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
