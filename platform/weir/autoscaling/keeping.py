"""Decisions in the database: kept when something changes, and once a minute in any case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, delete, insert, select

from weir.autoscaling.report import Explanation, ModelState
from weir.autoscaling.tables import decisions

if TYPE_CHECKING:
    # Whoever only reads decisions needs no solver.
    from weir.autoscaling.deciding import Decided

_PERIOD_S = 60.0


@dataclass(frozen=True, slots=True)
class Kept:
    """One decision as it is kept. ``at_s``: seconds since the epoch; ``number``: its place among
    all, from 1 on, once it is kept."""

    at_s: float
    model: str
    policy: str
    changed: bool
    targets: Mapping[str, int]
    targets_before: Mapping[str, int]
    usd_per_hour: float
    spill_share: float
    explanation: Explanation
    state: ModelState
    number: int = 0


class Keeper:
    """Chooses what is worth keeping. ``policy``: its name."""

    def __init__(self, policy: str) -> None:
        self._policy = policy
        self._kept_s: dict[str, float] = {}

    def chosen(self, decided: Sequence[Decided]) -> list[Kept]:
        """What of a round is to be kept."""
        return [self._row(each) for each in decided if self._due(each)]

    def kept(self, rows: Sequence[Kept]) -> None:
        """They are in the database."""
        for row in rows:
            self._kept_s[row.model] = row.at_s

    def _due(self, each: Decided) -> bool:
        last_s = self._kept_s.get(each.model.name)
        return each.changes or last_s is None or each.at_s - last_s >= _PERIOD_S

    def _row(self, each: Decided) -> Kept:
        decision = each.decision
        return Kept(
            each.at_s,
            each.model.name,
            self._policy,
            each.changes,
            dict(each.targets),
            dict(each.before),
            each.usd_per_hour,
            decision.spill_share,
            decision.explanation,
            each.model,
        )


def keep(connection: Connection, rows: Sequence[Kept]) -> None:
    """Write them. The history of demand is not kept: it is what was kept before."""
    if rows:
        connection.execute(insert(decisions), [_values(row) for row in rows])


def forget_before(connection: Connection, at_s: float) -> None:
    """Older decisions go."""
    connection.execute(delete(decisions).where(decisions.c.at_s < at_s))


def find(
    connection: Connection,
    model: str | None = None,
    *,
    before_s: float | None = None,
    since_s: float | None = None,
    changed: bool | None = None,
    below: int | None = None,
    most: int = 100,
) -> list[Kept]:
    """The newest first. ``below``: those that were kept before that number."""
    query = select(decisions).order_by(decisions.c.number.desc())
    if model is not None:
        query = query.where(decisions.c.model == model)
    if before_s is not None:
        query = query.where(decisions.c.at_s <= before_s)
    if since_s is not None:
        query = query.where(decisions.c.at_s >= since_s)
    if changed is not None:
        query = query.where(decisions.c.changed == changed)
    if below is not None:
        query = query.where(decisions.c.number < below)
    return [_kept(row._mapping) for row in connection.execute(query.limit(most))]


def of_each_model(connection: Connection, before_s: float) -> list[Kept]:
    """The last decision of each model until then."""
    names = select(decisions.c.model).where(decisions.c.at_s <= before_s).distinct()
    found = []
    for name in sorted(connection.scalars(names)):
        found += find(connection, name, before_s=before_s, most=1)
    return found


def in_order(connection: Connection, since_s: float, until_s: float) -> Iterator[Kept]:
    """All of a span of time, oldest first."""
    query = select(decisions).where(decisions.c.at_s.between(since_s, until_s))
    for row in connection.execute(query.order_by(decisions.c.at_s, decisions.c.number)):
        yield _kept(row._mapping)


def _values(row: Kept) -> dict[str, Any]:
    told: dict[str, Any] = plain(row)
    told["state"]["history"] = []
    del told["number"]
    return told


def plain(value: Any) -> Any:
    """A frozen dataclass as JSON has it."""
    return msgspec.to_builtins(value, enc_hook=dict)


def _kept(row: Mapping[Any, Any]) -> Kept:
    told = {each.name: row[each.name] for each in fields(Kept)}
    told["explanation"] = msgspec.convert(row["explanation"], Explanation, strict=False)
    told["state"] = msgspec.convert(row["state"], ModelState, strict=False)
    return Kept(**told)
