"""What engines have counted, what the ledger has, and what was paid."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import aiohttp
from sqlalchemy import Engine, func, select

from load_tests.money.mix import Seen
from load_tests.money.platform import REPLICA_USD_PER_HOUR, Live
from weir.database import reading
from weir.ledger.report import CostReport, cost_report
from weir.ledger.tables import replica_hours, usage_records

_SAMPLE = re.compile(
    r'^vllm:(prompt|generation)_tokens_total\{replica="([^"]+)"[^}]*\} ([0-9.e+]+)$', re.MULTILINE
)
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one replica, or of all."""

    prompt: int = 0
    output: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt + other.prompt, self.output + other.output)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(self.prompt - other.prompt, self.output - other.output)


async def engine_tokens(http: aiohttp.ClientSession, live: Live) -> dict[str, Tokens]:
    """By replica, as the engines' own counters say."""
    headers = {"authorization": f"Bearer {live.internal}"}
    async with http.get(f"{live.url}/metrics", headers=headers) as response:
        response.raise_for_status()
        return tokens_in(await response.text())


def tokens_in(text: str) -> dict[str, Tokens]:
    """By replica, from the platform's page of metrics."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for kind, replica, value in _SAMPLE.findall(text):
        found[replica][kind] += int(float(value))
    return {replica: Tokens(c["prompt"], c["generation"]) for replica, c in found.items()}


def ledger_tokens(database: Engine) -> dict[str, Tokens]:
    """By replica, as the ledger has it."""
    c = usage_records.c
    sums = select(c.replica, func.sum(c.prompt_tokens), func.sum(c.output_tokens))
    with reading(database) as connection:
        rows = connection.execute(sums.group_by(c.replica)).all()
    return {replica: Tokens(int(prompt), int(output)) for replica, prompt, output in rows}


@dataclass(frozen=True, slots=True)
class Legs:
    """Figures of single records. ``moved``, ``retried``: choices that went on elsewhere, with or
    without output. ``unbilled_tokens``: what engines generated and nobody pays for."""

    records: int
    moved: int
    retried: int
    cascaded: int
    spilled: int
    unbilled_tokens: int


def legs(database: Engine) -> Legs:
    """Of all records."""
    c = usage_records.c
    columns = select(c.leg, c.tenant, c.part, c.spill, c.output_tokens, c.billed_output_tokens)
    with reading(database) as connection:
        rows = connection.execute(columns).all()
    tokens: dict[str, int] = {}
    spilled, cascaded = set(), set()
    unbilled = 0
    for row in rows:
        unbilled += row.output_tokens - row.billed_output_tokens
        if row.part == "whole":
            tokens[row.leg] = row.output_tokens
            serial, attempt, _, _ = row.leg.rsplit(".", 3)
            if row.spill:
                spilled.add(serial)
            elif attempt != "0" and row.tenant == "cascading":
                cascaded.add(serial)
    left: Counter[bool] = Counter()
    for leg in tokens:
        choice, _, number = leg.rpartition(".")
        if number != "0":
            left[tokens.get(f"{choice}.{int(number) - 1}", 0) > 0] += 1
    return Legs(len(rows), left[True], left[False], len(cascaded), len(spilled), unbilled)


@dataclass(frozen=True, slots=True)
class Used:
    """What a tenant is billed in all."""

    output_tokens: int = 0
    nano_usd: int = 0


def used(database: Engine) -> dict[str, Used]:
    """By tenant."""
    c = usage_records.c
    sums = select(c.tenant, func.sum(c.billed_output_tokens), func.sum(c.nano_usd))
    with reading(database) as connection:
        rows = connection.execute(sums.group_by(c.tenant)).all()
    return {tenant: Used(int(output), int(nano)) for tenant, output, nano in rows}


def wrongly_billed(database: Engine, answers: Sequence[Seen]) -> tuple[int, int]:
    """Of the answers that their clients have whole: how many are in no record, and how many are
    billed with other counts than the client was told."""
    c = usage_records.c
    sums = select(c.request, func.sum(c.billed_prompt_tokens), func.sum(c.billed_output_tokens))
    with reading(database) as connection:
        rows = connection.execute(sums.group_by(c.request)).all()
    billed = {request: (int(prompt), int(output)) for request, prompt, output in rows}
    missing = wrong = 0
    for seen in answers:
        if seen.whole:
            told = (seen.prompt_tokens, seen.output_tokens)
            found = billed.get(seen.ask.id)
            missing += found is None
            wrong += found is not None and found != told
    return missing, wrong


def hours_told(database: Engine) -> int:
    """Of how many replicas the ledger knows that they were up."""
    with reading(database) as connection:
        found = connection.scalar(select(func.count(replica_hours.c.replica.distinct())))
    return int(found or 0)


@dataclass(frozen=True, slots=True)
class Paid:
    """``report`` is the platform's own. ``by_processes_usd``: what the replicas' processes cost
    from when they began to when the ledger last saw them."""

    report: CostReport
    by_processes_usd: Decimal

    @property
    def missing_usd(self) -> Decimal:
        """Of what was paid, what no row bears and what is not idle either."""
        borne = sum((row.cost_usd for row in self.report.rows), Decimal(0))
        return self.report.paid_usd - borne - self.report.idle_usd


def paid(database: Engine, live: Live, began_ms: Mapping[str, float]) -> Paid:
    """``began_ms``: when each replica's process began."""
    with reading(database) as connection:
        c = replica_hours.c
        seen = select(c.replica, func.max(c.last_ms)).group_by(c.replica)
        last = {replica: int(until) for replica, until in connection.execute(seen)}
    up_ms = sum(max(0.0, last[r] - began) for r, began in began_ms.items() if r in last)
    usd = Decimal(up_ms / _HOUR_MS) * Decimal(str(REPLICA_USD_PER_HOUR))
    return Paid(cost_report(database), usd)
