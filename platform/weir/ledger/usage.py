"""What was used: sums from the database, for the API, the command line and bills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, get_args

from sqlalchemy import BigInteger, ColumnElement, Engine, and_, func, literal_column, select, true

from weir.cost import usd_of
from weir.database import reading
from weir.errors import BadRequestError
from weir.ledger.tables import usage_sums

By = Literal[
    "tenant", "model", "class", "key", "label", "day", "hour", "endpoint", "asked", "pool", "spill"
]
#: The day's beginning. No parameter: it stands in two clauses of a statement.
_DAY = literal_column("usage_sums.hour_ms - usage_sums.hour_ms % 86400000", BigInteger)
_COLUMNS = {"class": "priority_class"}


@dataclass(frozen=True, slots=True)
class Period:
    """From ``since_ms`` to before ``until_ms``, in milliseconds since the epoch; None: unbounded.
    Sums are kept by the hour: the hours that begin in it count."""

    since_ms: int | None = None
    until_ms: int | None = None

    def of(self, column: ColumnElement[Any]) -> ColumnElement[bool]:
        """The condition."""
        bounds: list[ColumnElement[bool]] = [true()]
        if self.since_ms is not None:
            bounds.append(column >= self.since_ms)
        if self.until_ms is not None:
            bounds.append(column < self.until_ms)
        return and_(*bounds)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one group has used: ``group`` has the value of each thing that was asked for, in order.

    Token counts and ``usd`` are as billed. ``engine_*`` are what engines counted, losses of the
    platform included.
    """

    group: tuple[str, ...]
    requests: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    images: int
    usd: Decimal
    engine_prompt_tokens: int
    engine_cached_tokens: int
    engine_output_tokens: int

    def told(self, by: Sequence[By]) -> dict[str, Any]:
        """As JSON has it: amounts are decimal text."""
        row = {f.name: getattr(self, f.name) for f in fields(self)[1:]}
        return {**dict(zip(by, self.group, strict=True)), **row, "usd": f"{self.usd:f}"}


def usage(
    engine: Engine,
    by: Sequence[By] = ("tenant",),
    period: Period | None = None,
    tenant: str | None = None,
    key: str | None = None,
    limit: int | None = None,
) -> list[Usage]:
    """Sums for each group, in the order of the groups. ``tenant``, ``key``: of that one only;
    ``limit``: of so many groups at most.

    Raises:
        BadRequestError: ``by`` names nothing, or something unknown.
        DatabaseAwayError: the database does not answer.
    """
    table, grouped = usage_sums.c, [sum_column(name) for name in by]
    if not grouped:
        raise BadRequestError("by names nothing to sum by.", param="by")
    sums = (
        "requests",
        "billed_prompt_tokens",
        "billed_cached_tokens",
        "billed_output_tokens",
        "images",
        "nano_usd",
        "prompt_tokens",
        "cached_tokens",
        "output_tokens",
    )
    statement = select(*grouped, *(func.sum(table[name]) for name in sums))
    statement = statement.where((period or Period()).of(table.hour_ms))
    if tenant is not None:
        statement = statement.where(table.tenant == tenant)
    if key is not None:
        statement = statement.where(table.key == key)
    with reading(engine) as connection:
        rows = connection.execute(
            statement.group_by(*grouped).order_by(*grouped).limit(limit)
        ).all()
    return [_usage(by, row) for row in rows]


_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def parse_moment(text: str) -> int:
    """Milliseconds since the epoch of a day (2026-11-27, at its beginning, UTC), a moment (with a
    time zone, or UTC), or so many days, hours or minutes ago (7d, 12h, 15m).

    Raises:
        BadRequestError: it is none of these.
    """
    try:
        if (unit := _UNITS.get(text[-1:])) is not None and text[:-1].isdigit():
            ago = timedelta(**{unit: int(text[:-1])})
            return int((datetime.now(UTC) - ago).timestamp() * 1000)
        if len(text) == len("2026-11-27"):
            day = date.fromisoformat(text)
            return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise BadRequestError(f"{text[:40]!r} is no date, moment or time ago (7d, 12h).") from None


def day_of(ms: int) -> str:
    """2026-11-27, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def sum_column(name: str) -> ColumnElement[Any]:
    """What sums are grouped by.

    Raises:
        BadRequestError: nothing of that name.
    """
    if name not in get_args(By):
        raise BadRequestError(
            f"by: {name[:40]!r} is not one of {', '.join(get_args(By))}.", param="by"
        )
    if name == "day":
        return _DAY
    if name == "hour":
        return usage_sums.c.hour_ms
    column: ColumnElement[Any] = usage_sums.c[_COLUMNS.get(name, name)]
    return column


def _usage(by: Sequence[By], row: Any) -> Usage:
    count = len(by)
    group = tuple(group_name(name, value) for name, value in zip(by, row[:count], strict=True))
    requests, prompt, cached, output, images, nano_usd, *engine = map(int, row[count:])
    engine_prompt, engine_cached, engine_output = engine
    return Usage(
        group,
        requests,
        prompt,
        cached,
        output,
        images,
        usd_of(nano_usd),
        engine_prompt,
        engine_cached,
        engine_output,
    )


def group_name(name: By, value: Any) -> str:
    """A group's value as people read it."""
    if name == "day":
        return day_of(int(value))
    if name == "hour":
        return datetime.fromtimestamp(int(value) / 1000, UTC).strftime("%Y-%m-%dT%H:00Z")
    return str(value)
