"""How often answers kept their class's limit for the first token: sums by hour, and the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import BigInteger, Column, Engine, String, Table, func, literal_column, select

from weir.database import metadata, reading
from weir.errors import BadRequestError
from weir.ledger.record import UsageRecord
from weir.ledger.tables import HOUR_MS
from weir.ledger.usage import Period, group_name

By = Literal["tenant", "model", "class", "day", "hour"]
#: The day's beginning. No parameter: it stands in two clauses of a statement.
_DAY = literal_column("slo_sums.hour_ms - slo_sums.hour_ms % 86400000", BigInteger)
_COLUMNS = {"class": "priority_class", "hour": "hour_ms"}

SLO_KEYS = ("hour_ms", "tenant", "model", "priority_class")
SLO_SUMS = ("met", "missed", "first_tokens", "ttft_ms")

#: ``met``, ``missed``: answers of classes with a limit. ``first_tokens``: answers whose time to the
#: first token is in ``ttft_ms``.
slo_sums = Table(
    "slo_sums",
    metadata,
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", String(63), primary_key=True),
    Column("model", String(256), primary_key=True),
    Column("priority_class", String(63), primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in SLO_SUMS),
)


@dataclass(frozen=True, slots=True)
class SloRow:
    """One group's answers. ``attained``: the share of ``met``; None where no class has a limit.
    ``mean_ttft_ms``: None where nothing was answered."""

    group: tuple[str, ...]
    met: int
    missed: int
    attained: float | None
    mean_ttft_ms: float | None

    def told(self, by: Sequence[By]) -> dict[str, Any]:
        """As JSON has it."""
        return {
            **dict(zip(by, self.group, strict=True)),
            "met": self.met,
            "missed": self.missed,
            "attained": self.attained,
            "mean_ttft_ms": self.mean_ttft_ms,
        }


def slo_rows(records: Iterable[UsageRecord]) -> list[dict[str, Any]]:
    """What records add to :data:`slo_sums`, in the order of the keys."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for record in records:
        timed = record.ttft_ms >= 0
        if not record.slo and not timed:
            continue
        hour_ms = record.ended_ms // HOUR_MS * HOUR_MS
        key = (hour_ms, record.tenant, record.asked[:256], record.priority_class)
        added = (
            int(record.slo == "met"),
            int(record.slo == "missed"),
            int(timed),
            max(0, record.ttft_ms),
        )
        sums = found.setdefault(key, [0] * len(SLO_SUMS))
        found[key] = [have + more for have, more in zip(sums, added, strict=True)]
    return [
        dict(zip((*SLO_KEYS, *SLO_SUMS), (*key, *found[key]), strict=True)) for key in sorted(found)
    ]


def slo_report(
    engine: Engine,
    by: Sequence[By] = ("class",),
    period: Period | None = None,
    tenant: str | None = None,
    limit: int | None = None,
) -> list[SloRow]:
    """Sums for each group, in the order of the groups.

    Raises:
        BadRequestError: ``by`` names nothing, or something unknown.
        DatabaseAwayError: the database does not answer.
    """
    if not by:
        raise BadRequestError("by names nothing to sum by.", param="by")
    grouped = [_column(name) for name in by]
    statement = select(*grouped, *(func.sum(slo_sums.c[name]) for name in SLO_SUMS))
    statement = statement.where((period or Period()).of(slo_sums.c.hour_ms))
    if tenant is not None:
        statement = statement.where(slo_sums.c.tenant == tenant)
    statement = statement.group_by(*grouped).order_by(*grouped).limit(limit)
    with reading(engine) as connection:
        return [_row(by, row) for row in connection.execute(statement)]


def _column(name: str) -> Any:
    if name not in get_args(By):
        raise BadRequestError(
            f"by: {name[:40]!r} is not one of {', '.join(get_args(By))}.", param="by"
        )
    if name == "day":
        return _DAY
    return slo_sums.c[_COLUMNS.get(name, name)]


def _row(by: Sequence[By], row: Any) -> SloRow:
    values = zip(by, row[: len(by)], strict=True)
    group = tuple(group_name(name, value) for name, value in values)
    met, missed, timed, ttft_ms = (int(value) for value in row[len(by) :])
    return SloRow(
        group,
        met,
        missed,
        round(met / (met + missed), 6) if met + missed else None,
        round(ttft_ms / timed, 3) if timed else None,
    )
