"""Does the ledger come to what the engines have counted and what was paid, whatever is killed?"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import aiohttp
from sqlalchemy import Engine

from load_tests.loadgen import Target
from load_tests.migration.replicas import Fleet, replicas_asked_for
from load_tests.money.accidents import Accidents
from load_tests.money.mix import (
    MOST_CHOICES,
    MOST_TOKENS,
    Clients,
    Seen,
    asks,
    bounds_of,
    tenants_of,
)
from load_tests.money.platform import MODEL, STUDENT, Live, Shape, running
from load_tests.money.truth import (
    Legs,
    Paid,
    Tokens,
    Used,
    engine_tokens,
    hours_told,
    ledger_tokens,
    legs,
    paid,
    used,
    wrongly_billed,
)
from load_tests.report import Mark, Row
from load_tests.servers import EngineWorkload, StartError

TABLE = "exact: {requests:,} requests, 4 gateways, accidents on the way"
_GATEWAYS = 4
_SETTLED_S = 20.0
_PATIENCE_S = 90.0
_UP_S = 60.0
#: The most that a request of the mix can cost, in nano-USD.
_MOST_NANO_USD = 10_000 * MOST_CHOICES * MOST_TOKENS + 3_000 * 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. ``engines`` and ``ledger`` are of the replicas whose counters could still be
    read."""

    seen: Sequence[Seen]
    accidents: Counter[str]
    lost: Counter[str]
    engines: Tokens
    ledger: Tokens
    everywhere: Tokens
    replicas_gone: int
    legs: Legs
    used: dict[str, Used]
    missing: int
    wrong: int
    paid: Paid
    seconds: float


def exact_rows(
    workload: EngineWorkload, options: argparse.Namespace
) -> tuple[list[Row], list[Mark]]:
    """Start the platform, ask, kill, and add up.

    Raises:
        StartError: the platform does not come up.
    """
    requests = options.requests or (600 if options.quick else 10_000)
    interval_ms = None if options.engine == "vllm" else 10.0
    shape = Shape(_GATEWAYS, 2, interval_ms)
    with running(workload, shape, tenants_of(requests), options.keep_logs) as live:
        outcome = asyncio.run(_run(live, requests, options.streams, options.seed))
    return [_row(outcome, requests)], exact_marks(outcome, requests, shape.gateways)


async def _run(live: Live, requests: int, streams: int, seed: int) -> Outcome:
    _allow_many_sockets()
    began_s, ended = time.monotonic(), 0
    timeout = aiohttp.ClientTimeout(total=None, connect=10.0)
    connector = aiohttp.TCPConnector(limit=0)

    def one_more() -> None:
        nonlocal ended
        ended += 1

    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        before = await engine_tokens(http, live)
        if not before:
            raise StartError("no engine tells its counters", "")
        clients = Clients(http, live.url, live.keys, one_more)
        accidents = Accidents(live, clients.in_flight, lambda: ended / requests)
        happening = asyncio.create_task(accidents.run(http))
        seen = await clients.all(asks(requests, seed), streams)
        await happening
        seconds = time.monotonic() - began_s
        database = live.database()
        engines = await _settled(http, live, database, before)
        began_ms = await _began(http, live)
    there = ledger_tokens(database)
    missing, wrong = wrongly_billed(database, seen)
    return Outcome(
        seen,
        accidents.done,
        accidents.lost,
        sum(engines.values(), Tokens()),
        sum((there.get(replica, Tokens()) for replica in engines), Tokens()),
        sum(there.values(), Tokens()),
        len(there.keys() - engines.keys()),
        legs(database),
        used(database),
        missing,
        wrong,
        paid(database, live, began_ms),
        seconds,
    )


async def _settled(
    http: aiohttp.ClientSession, live: Live, database: Engine, before: dict[str, Tokens]
) -> dict[str, Tokens]:
    """The engines' counters once the ledger agrees, or has not changed for a while."""
    give_up_s = time.monotonic() + _PATIENCE_S
    changed_s, last = time.monotonic(), dict[str, Tokens]()
    while True:
        try:
            told = await engine_tokens(http, live)
        except (aiohttp.ClientError, OSError, TimeoutError):
            told = {}  # the last gateway that was killed is not back yet
        engines = {r: tokens - before.get(r, Tokens()) for r, tokens in told.items()}
        there, now_s = ledger_tokens(database), time.monotonic()
        if there != last:
            changed_s, last = now_s, there
        agreed = len(engines) >= len(before) and all(
            there.get(replica, Tokens()) == tokens for replica, tokens in engines.items()
        )
        # A little longer even where they agree: something may be counted twice.
        quiet_s = _SETTLED_S / 4 if agreed else _SETTLED_S
        settled = now_s - changed_s > quiet_s and engines
        # That a replica is up, gateways tell once a minute.
        if (settled and hours_told(database) >= len(before)) or now_s > give_up_s:
            return engines
        await asyncio.sleep(0.5)


async def _began(http: aiohttp.ClientSession, live: Live) -> dict[str, float]:
    """When the process of each replica began, in milliseconds since the epoch. One that Ray had
    kept idle for whoever would need it began when Serve asked for the replica, by Serve's log."""
    host, _, port = live.url.removeprefix("http://").partition(":")
    asked_s = await asyncio.to_thread(replicas_asked_for, live.started)
    found: dict[str, float] = {}
    give_up_s = time.monotonic() + _UP_S
    for model, count in ((MODEL, 2), (STUDENT, 1)):
        fleet = Fleet(Target(host, int(port)), model, live.internal, live.started)
        while len(fleet.families) < count and time.monotonic() < give_up_s:
            await fleet.ask(http)
            await asyncio.sleep(0.2)
        for replica, family in fleet.families.items():
            began_s = max(family[0].create_time(), asked_s.get(replica, 0.0))
            found[replica] = began_s * 1000
    return found


def _row(outcome: Outcome, requests: int) -> dict[str, Any]:
    seen = outcome.seen
    counted = Counter(
        "whole" if s.whole else "left" if s.left else "broken" if s.broken else f"status_{s.status}"
        for s in seen
    )
    report = outcome.paid.report
    lost_tokens = outcome.legs.unbilled_tokens
    return {
        "table": TABLE.format(requests=requests),
        "system": "weir",
        "requests": len(seen),
        "requests_per_s": len(seen) / outcome.seconds,
        "answers_whole": counted["whole"],
        "clients_left": counted["left"],
        "answers_broken_off": counted["broken"],
        "refused_429": counted["status_429"],
        "other_errors": sum(n for key, n in counted.items() if key.startswith("status_5")),
        "spilled": outcome.legs.spilled,
        "cascaded": outcome.legs.cascaded,
        "moved": outcome.legs.moved,
        "retried": outcome.legs.retried,
        **{f"accidents_{name}": count for name, count in sorted(outcome.accidents.items())},
        "replicas_gone": outcome.replicas_gone,
        "engine_prompt_tokens": outcome.engines.prompt,
        "ledger_prompt_tokens": outcome.ledger.prompt,
        "engine_output_tokens": outcome.engines.output,
        "ledger_output_tokens": outcome.ledger.output,
        "records": outcome.legs.records,
        "output_tokens_nobody_pays": lost_tokens,
        "paid_usd": float(report.paid_usd),
        "paid_by_processes_usd": float(outcome.paid.by_processes_usd),
        "borne_usd": float(report.paid_usd - report.idle_usd),
        "idle_usd": float(report.idle_usd),
        "billed_usd": float(report.billed_usd),
    }


def exact_marks(outcome: Outcome, requests: int, gateways: int) -> list[Mark]:
    """What must add up, and by how much bounds were exceeded beyond what is stated."""
    marks = [
        *_compared(outcome),
        Mark("whole answers in no record", outcome.missing, "answers", 0, "lower"),
        Mark("whole answers billed otherwise than told", outcome.wrong, "answers", 0, "lower"),
        _usd("paid less cost and idle", outcome.paid.missing_usd),
        _usd(
            "paid: ledger less processes",
            outcome.paid.report.paid_usd - outcome.paid.by_processes_usd,
        ),
    ]
    for tenant, bounds in bounds_of(requests).items():
        most, most_each, unit = bounds.output_tokens, MOST_CHOICES * MOST_TOKENS, "tokens"
        spent = outcome.used.get(tenant, Used())
        value = spent.output_tokens
        if most is None:
            most, most_each, unit = round((bounds.usd or 0) * 1e9), _MOST_NANO_USD, "nano-USD"
            value = spent.nano_usd
        allowed = allowance(most, most_each, outcome, tenant, gateways)
        name = f"{tenant}: bound of {most} {unit} exceeded by"
        marks.append(Mark(name, max(0, value - most), unit, allowed, "lower"))
    return marks


def _compared(outcome: Outcome) -> list[Mark]:
    """The ledger beside the counters of the engines that are there at the end. One that is gone has
    taken its counters with it: where that is more than half, nothing is compared."""
    apart = outcome.engines - outcome.ledger
    reason = None
    if 2 * outcome.ledger.output < outcome.everywhere.output:
        reason = f"{outcome.replicas_gone} replicas are gone, with most of what was counted"
    return [
        Mark(name, None if reason else abs(value), "tokens", 0, "lower", reason)
        for name, value in (
            ("prompt tokens: engines less ledger", apart.prompt),
            ("output tokens: engines less ledger", apart.output),
        )
    ]


def allowance(most: int, most_each: int, outcome: Outcome, tenant: str, gateways: int) -> int:
    """By how much a bound may be exceeded, as docs/money.md says: a twentieth of it for each
    gateway each time that Redis was away, and what was under way in gateways that were killed."""
    away = outcome.accidents["redis"] * gateways * most // 20
    return away + outcome.lost[tenant] * most_each


def unmeasured(reason: str) -> list[Mark]:
    """The marks of a run that came to nothing."""
    tokens = ("prompt tokens: engines less ledger", "output tokens: engines less ledger")
    answers = ("whole answers in no record", "whole answers billed otherwise than told")
    usd = ("paid less cost and idle", "paid: ledger less processes")
    return [
        *(Mark(name, None, "tokens", 0, "lower", reason) for name in tokens),
        *(Mark(name, None, "answers", 0, "lower", reason) for name in answers),
        *(Mark(name, None, "USD", 0.01, "lower", reason) for name in usd),
        *(
            Mark(f"{tenant}: bound exceeded by", None, "tokens", 0, "lower", reason)
            for tenant in bounds_of(0)
        ),
    ]


def _usd(name: str, value: Decimal) -> Mark:
    return Mark(name, float(abs(value)), "USD", 0.01, "lower")


def _allow_many_sockets() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
