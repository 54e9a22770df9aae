"""The levers' outcomes as a table for people and as a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping

from deployments.levers.registry import Lever, Outcome

_INTRO = """# The engine's levers

What `weir levers` found on one engine: {engine}. Each lever ran in a process of its own, on the
teacher that ships with weir, without and with the lever in turn. *Equal* is the share of answers
that are token for token those without the lever, at temperature 0. *Gain* is a ratio within the
same run, above 1 where the lever helps; a model of this size gains other amounts than a large
one.{quick}

Written by `weir levers{flag} --write docs/levers.md`. How to try them on other models:
[replicas.md](replicas.md#the-engines-levers).

| lever | setting | works | equal | gain | of | remarks |
|---|---|---|---|---|---|---|
"""

_QUICK = " Everything was timed once (`--quick`), so the gains are rough."


def as_line(name: str, outcome: Outcome) -> str:
    """One line of the table on the terminal."""
    works, equal, gain = _cells(outcome)
    remark = " · ".join(part for part in (outcome.gain_of, outcome.note) if part)
    return f"{name:<30}{works:<7}{equal:>6}{gain:>9}  {remark}"


def as_page(
    tried: Mapping[str, Lever], outcomes: Mapping[str, Outcome], engine: str, quick: bool = False
) -> str:
    """The page in Markdown. ``quick``: everything was timed once."""
    rows = []
    for name, outcome in outcomes.items():
        cells = (
            name,
            f"`{tried[name].arguments}`",
            *_cells(outcome),
            outcome.gain_of,
            outcome.note,
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    told = _QUICK if quick else ""
    intro = _INTRO.format(engine=engine, quick=told, flag=" --quick" if quick else "")
    return intro + "".join(rows)


def _cells(outcome: Outcome) -> tuple[str, str, str]:
    equal = "–" if outcome.equal is None else f"{outcome.equal:.0%}"
    gain = "–" if outcome.gain is None else f"{outcome.gain:.2f} ×"
    return ("yes" if outcome.works else "no"), equal, gain
