"""The fault table: what a request got, and what it waited, when its features could not be had.

The gateway's own enricher, at 200 requests per second, in front of a real Redis behind a proxy that
fails in the middle of the run; stale, missing and wrong data are written into the store instead.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import uvloop

from deployments.gateway.bodies.requests import ChatBody, ChatMessage
from deployments.gateway.enrichment import FeatureEnricher, build_enricher
from features.keys import entity_key
from features.online.format import hash_key, value_field
from load_tests.features.data import TENANT, FeastWriter, features_section, rows
from load_tests.features.proxy import Fault, FaultyProxy
from load_tests.report import percentile
from weir.metrics import GatewayMetrics
from weir.samples.world import Customer
from weir.settings import load_settings
from weir.tenancy import Tenant

BUDGET_MS = 5.0
ALLOWED_OVER_MS = 5.0
RATE_PER_S = 200.0
TABLE = "faults: what a request got and waited (budget 5 ms, 200 requests/s)"


@dataclass(frozen=True, slots=True)
class Case:
    """A fault of the connection, or entities whose data are not as they should be."""

    title: str
    fault: Fault = "none"
    entities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What one request got."""

    at_s: float
    waited_ms: float
    outcome: str
    enriched: bool


def cases(people: Sequence[Customer]) -> list[Case]:
    """All of the issue's, and a store that hangs."""
    return [
        Case("nothing wrong"),
        Case("Redis killed", "killed"),
        Case("Redis slow (500 ms)", "slow"),
        Case("Redis hangs", "hanging"),
        Case("Redis returns garbage", "garbage"),
        Case("features stale", entities=tuple(f"stale{n}" for n in range(20))),
        Case("entity missing", entities=tuple(f"nobody{n}" for n in range(20))),
        Case("wrong type", entities=tuple(f"wrong{n}" for n in range(20))),
    ]


def write_bad_data(writer: FeastWriter, redis_url: str, people: Sequence[Customer]) -> None:
    """Rows that are too old, and values of other types and bytes that are no values."""
    old = dt.datetime.now(dt.UTC) - dt.timedelta(days=400)
    for view, found in rows(people[:20]).items():
        stale = [{**row, "entity": entity_key(TENANT, f"stale{n}")} for n, row in enumerate(found)]
        writer.write(view, stale, old)
        wrong = [{**row, "entity": entity_key(TENANT, f"wrong{n}")} for n, row in enumerate(found)]
        writer.write(view, wrong, dt.datetime.now(dt.UTC))
    store = redis.Redis.from_url(redis_url)
    for n in range(20):
        key = hash_key(entity_key(TENANT, f"wrong{n}"))
        spoiled = b"\x20\x07" if n % 2 else b"\xff\xff\xff"  # a number, and no value at all
        store.hset(key, value_field("customer_profile", "name"), spoiled)  # type: ignore[arg-type]
    store.close()


def fault_rows(
    proxy: FaultyProxy, people: Sequence[Customer], seconds: float
) -> list[dict[str, Any]]:
    """One row per case."""
    known = tuple(customer.customer_id for customer in people)
    return [
        uvloop.run(_case(case, proxy, case.entities or known, seconds)) for case in cases(people)
    ]


async def _case(
    case: Case, proxy: FaultyProxy, entities: Sequence[str], seconds: float
) -> dict[str, Any]:
    proxy.fail("none")
    section = features_section(f"redis://127.0.0.1:{proxy.port}/0", budget_ms=BUDGET_MS)
    settings = load_settings("stub", overlay={"features": section})
    enricher = build_enricher(settings, GatewayMetrics(), {})
    enricher.start()
    await enricher.connected()
    loop = asyncio.get_running_loop()
    fail_after_s = seconds / 4 if case.fault != "none" else 0.0
    started_s = time.perf_counter()
    breaking = loop.run_in_executor(None, _break, proxy, case.fault, fail_after_s)
    found = await _requests(enricher, entities, seconds, lambda: time.perf_counter() - started_s)
    broken_s = await breaking - started_s
    proxy.fail("none")
    recovered_ms = await _recovery(enricher, entities)
    await enricher.close()
    during = [each for each in found if case.fault == "none" or each.at_s >= broken_s]
    return _row(case, during, recovered_ms)


def _break(proxy: FaultyProxy, fault: Fault, after_s: float) -> float:
    time.sleep(after_s)
    proxy.fail(fault)
    return time.perf_counter()


async def _requests(
    enricher: FeatureEnricher, entities: Sequence[str], seconds: float, now: Callable[[], float]
) -> list[Request]:
    found: list[Request] = []
    tasks = []
    for number in range(int(seconds * RATE_PER_S)):
        await asyncio.sleep(max(0.0, number / RATE_PER_S - now()))
        entity = entities[number % len(entities)]
        tasks.append(asyncio.create_task(_request(enricher, entity, found, now)))
    await asyncio.gather(*tasks)
    return found


async def _request(
    enricher: FeatureEnricher, entity: str, found: list[Request], now: Callable[[], float]
) -> None:
    body = ChatBody(
        model="stub",
        messages=[
            ChatMessage(role="system", content="You are the support desk."),
            ChatMessage(role="user", content="Where is my order?"),
        ],
    )
    at_s = now()
    enrichment = await enricher.begin(Tenant(TENANT), body, {b"x-weir-entity": entity}.get).finish()
    waited_ms = (now() - at_s) * 1e3
    found.append(Request(at_s, waited_ms, enrichment.outcome, enrichment.enriched))


async def _recovery(enricher: FeatureEnricher, entities: Sequence[str]) -> float:
    """From the end of the fault to the first answer from the store."""
    began_s = time.perf_counter()
    found: list[Request] = []
    while time.perf_counter() - began_s < 10:
        await _request(enricher, entities[0], found, time.perf_counter)
        if found[-1].outcome not in ("down", "timeout"):
            return (time.perf_counter() - began_s) * 1e3
        await asyncio.sleep(0.005)
    return float("inf")


def _row(case: Case, during: Sequence[Request], recovered_ms: float) -> dict[str, Any]:
    waited = [each.waited_ms for each in during]
    outcomes = Counter(each.outcome for each in during)
    said = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common())
    return {
        "system": case.title,
        "requests": len(during),
        "x_weir_features": said,
        "answered_without_error": len(during),
        "with_features": sum(each.enriched for each in during),
        "p50_ms": percentile(waited, 50),
        "p99_ms": percentile(waited, 99),
        "max_ms": max(waited),
        "until_features_again_ms": recovered_ms if case.fault != "none" else None,
        "table": TABLE,
    }
