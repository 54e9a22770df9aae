"""A report for people: rows grouped by ``table``, reasons below them, then the marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from load_tests.report.shape import Mark, Report, Row
from load_tests.report.stats import round_figures

HIDDEN = ("table", "reason")
WIDE = 9
"""Columns that fit side by side."""


def tables(report: Report) -> Iterator[Table]:
    """The tables of a report, in the order in which its rows name them."""
    groups: dict[str, list[Row]] = {}
    for row in report.rows:
        groups.setdefault(str(row.get("table", "")), []).append(row)
    for title, rows in groups.items():
        yield _rows_table(f"{report.bench}: {title}" if title else report.bench, rows)
    if report.marks:
        yield _marks_table(report.marks)


def _rows_table(title: str, rows: Sequence[Row]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in HIDDEN))
    reasons = [f"{row['system']}: {row['reason']}" for row in rows if row.get("reason")]
    table = Table(
        title=title,
        title_justify="left",
        caption="\n".join(reasons) or None,
        caption_justify="left",
    )
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    if len(columns) <= WIDE:
        for column in columns:
            table.add_column(Text(column), justify="left" if _is_text(rows, column) else "right")
        for line in cells:
            table.add_row(*(Text(cell) for cell in line))
        return table
    # Too wide to read: a line for each figure, a column for each system.
    table.add_column(Text(columns[0]))
    for line in cells:
        table.add_column(Text(line[0]), justify="right")
    for number, column in enumerate(columns[1:], start=1):
        table.add_row(Text(column), *(Text(line[number]) for line in cells))
    return table


def _marks_table(marks: Sequence[Mark]) -> Table:
    table = Table(title="marks", title_justify="left")
    for column in ("mark", "value", "target", "met"):
        table.add_column(column, justify="left" if column in ("mark", "met") else "right")
    for mark in marks:
        sign = "≤" if mark.better == "lower" else "≥"
        verdict = "yes" if mark.met else ("no" if mark.value is not None else "not measured")
        if mark.reason:
            verdict += f" ({mark.reason})"
        target = f"{sign} {_cell(mark.target)} {mark.unit}".rstrip()
        cells = (mark.name, _cell(mark.value), target, verdict)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _is_text(rows: Sequence[Row], column: str) -> bool:
    return any(isinstance(row.get(column), str) for row in rows)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{round_figures(value):,g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return str(value)
