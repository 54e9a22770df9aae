"""A request's legs as the ledger has them, once no gateway knows it any more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Engine, or_, select

from deployments.control.live_bodies import AttemptBody, FollowedBody, LegBody
from weir.cost import usd_of
from weir.database import reading
from weir.ledger.record import Part
from weir.ledger.tables import HOUR_MS, usage_records

_MOST = 500


def followed_in_ledger(
    engine: Engine, wanted: str, tenant: str | None, now_ms: int
) -> list[FollowedBody]:
    """Requests of the last hour that have that id, or that serial; the newest first. ``tenant``: of
    that one only.

    Raises:
        DatabaseAwayError: the database does not answer.
    """
    table = usage_records.c
    # A leg's name begins with the request's serial and a dot. An index finds the hour.
    named = or_(table.request == wanted, table.leg.startswith(f"{wanted}.", autoescape=True))
    statement = select(usage_records).where(table.ended_ms >= now_ms - HOUR_MS, named)
    if tenant is not None:
        statement = statement.where(table.tenant == tenant)
    with reading(engine) as connection:
        rows = connection.execute(statement.order_by(table.leg).limit(_MOST)).all()
    found = [_request(list(legs)) for _, legs in groupby(rows, _serial)]
    return sorted(found, key=lambda each: each.at_s, reverse=True)


def _serial(row: Any) -> str:
    return str(row.leg).partition(".")[0]


def _attempt_number(row: Any) -> str:
    return str(row.leg).split(".")[1]


def _request(rows: Sequence[Any]) -> FollowedBody:
    first = min(rows, key=lambda row: row.started_ms)
    begun_ms, ended_ms = first.started_ms, max(row.ended_ms for row in rows)
    return FollowedBody(
        serial=_serial(first),
        id=first.request,
        source="ledger",
        tenant=first.tenant,
        endpoint=first.endpoint,
        priority_class=first.priority_class,
        model=first.asked,
        status=None,
        code="",
        at_s=begun_ms / 1000,
        took_ms=float(ended_ms - begun_ms),
        ttft_ms=None,
        tpot_ms=None,
        prompt_tokens=sum(row.billed_prompt_tokens for row in rows),
        cached_tokens=sum(row.billed_cached_tokens for row in rows),
        output_tokens=sum(row.billed_output_tokens for row in rows),
        usd=f"{usd_of(sum(row.nano_usd for row in rows)):f}",
        batch=bool(first.batch),
        attempts=[_attempt(list(legs), begun_ms) for _, legs in groupby(rows, _attempt_number)],
    )


def _attempt(rows: Sequence[Any], begun_ms: int) -> AttemptBody:
    first = rows[0]
    return AttemptBody(
        model=first.model,
        adapter=first.adapter,
        spill=first.spill,
        outcome="shown" if any(row.billed for row in rows) else "dropped",
        admitted_ms=None,
        waited_ms=None,
        legs=_legs([row for row in rows if row.part == Part.WHOLE], begun_ms),
    )


def _legs(rows: Sequence[Any], begun_ms: int) -> list[LegBody]:
    """A leg that another one of its choice follows has broken off."""
    last = {_choice(row): row.leg for row in rows}
    return [_leg(row, begun_ms, last[_choice(row)] != row.leg) for row in rows]


def _choice(row: Any) -> int:
    return int(str(row.leg).split(".")[2])


def _leg(row: Any, begun_ms: int, broken: bool) -> LegBody:
    return LegBody(
        choice=_choice(row),
        replica=row.replica,
        prefill_replica=row.prefill_replica,
        begun_ms=float(row.started_ms - begun_ms),
        ended_ms=float(row.ended_ms - begun_ms),
        prompt_tokens=row.prompt_tokens,
        cached_tokens=row.cached_tokens,
        output_tokens=row.output_tokens,
        loss="moved" if broken else "",
        reason="",
        held_blocks=0,
        candidates=None,
    )
