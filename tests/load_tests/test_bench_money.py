"""The bench of money measures what it says, and has every mark."""

from __future__ import annotations

import argparse
from collections import Counter
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from deployments.gateway.metrics_page import merge_engines
from deployments.stub_generator import StubCounters
from load_tests.bench_money import PARTS
from load_tests.migration.replicas import asked_in
from load_tests.money import accounts
from load_tests.money.asking import CALLERS, measure
from load_tests.money.exact import Outcome, exact_marks
from load_tests.money.mix import Seen, asks, bounds_of, tenants_of
from load_tests.money.truth import Legs, Paid, Tokens, Used, tokens_in
from load_tests.servers import engine_workload, free_port
from tests.deployments.accounts.conftest import started
from weir.ledger.report import make_report
from weir.ledger.spending import Spending


@pytest.mark.parametrize("caller", sorted(CALLERS))
async def test_a_gateways_account_is_measured(tmp_path: Path, caller: str) -> None:
    server = started(tmp_path, free_port())
    try:
        alone = await measure(server.url, 0.1, 0, caller)
        assert alone["reserve_settle_p50_us"] > alone["ping_p50_us"] > 0
        assert (await measure(server.url, 0.1, 4, caller))["requests_per_s"] > 0
    finally:
        server.stop()


def test_rows_are_medians_and_marks_are_of_the_usual_tenant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def run(
        count: int, streams: int, seconds: float, caller: str, pause_s: float
    ) -> dict[str, float]:
        asked.append((count, streams, caller))
        if streams:
            return {"requests_per_s": 100.0 * count}
        us = 150.0 + len(asked) + (1000 if caller == "every" else 0)
        return {"reserve_settle_p50_us": us, "reserve_settle_p99_us": 2 * us}

    monkeypatch.setattr(accounts, "_run", run)
    options = argparse.Namespace(seconds=1.0, rounds=3, quick=False)
    rows, marks = accounts.account_rows(engine_workload(None), options)
    assert len(asked) == 15
    assert [row.get("requests_per_s") for row in rows] == [None, None, None, 100.0, 400.0]
    assert [(mark.value, mark.met) for mark in marks] == [(0.156, True), (0.312, True)]


def _outcome(**more: Any) -> Outcome:
    report = make_report("tenant", Spending({}, {}, {}, Counter(), 0))
    usual = {
        "seen": [Seen(ask) for ask in asks(20, 1)],
        "accidents": Counter(redis=1),
        "lost": Counter(bounded=2),
        "engines": Tokens(100, 50),
        "ledger": Tokens(100, 50),
        "everywhere": Tokens(100, 50),
        "replicas_gone": 0,
        "legs": Legs(1, 0, 0, 0, 0, 0),
        "used": {},
        "missing": 0,
        "wrong": 0,
        "paid": Paid(report, Decimal(0)),
        "seconds": 1.0,
    }
    return Outcome(**(usual | more))


def test_a_token_that_is_missing_shows() -> None:
    names = ("prompt tokens: engines less ledger", "output tokens: engines less ledger")
    for ledger, expected in ((Tokens(100, 50), (0, 0)), (Tokens(99, 51), (1, 1))):
        marks = {m.name: m for m in exact_marks(_outcome(ledger=ledger), 1000, 4)}
        assert tuple(marks[name].value for name in names) == expected


def test_the_stand_ins_counters_are_on_the_platforms_page() -> None:
    counters = StubCounters()
    counters.prompt_tokens, counters.output_tokens = 120, 30
    page = merge_engines({"a": counters.exposition().decode(), "b": ""})
    assert tokens_in(page) == {"a": Tokens(120, 30)}


def test_counters_that_are_gone_agree_with_nothing() -> None:
    gone = _outcome(engines=Tokens(), ledger=Tokens(), everywhere=Tokens(100, 50), replicas_gone=3)
    compared = [m for m in exact_marks(gone, 1000, 4) if m.name.endswith("engines less ledger")]
    assert [(mark.value, mark.met) for mark in compared] == [(None, False)] * 2
    assert all("3 replicas are gone" in (mark.reason or "") for mark in compared)


def test_a_bound_is_exceeded_by_what_is_above_it() -> None:
    most = bounds_of(1000)["bounded"].output_tokens
    assert most is not None
    marks = exact_marks(_outcome(used={"bounded": Used(most + 7)}), 1000, 4)
    mark = next(m for m in marks if m.name.startswith("bounded"))
    # A twentieth for each gateway, and what two requests may have used in one that was killed.
    assert (mark.value, mark.target) == (7, 4 * most // 20 + 2 * 64)


def test_the_mix_has_every_kind() -> None:
    mix = asks(2000, 7)
    assert {ask.tenant for ask in mix} == set(tenants_of(2000))
    assert any(ask.leaves_after for ask in mix)
    assert any(ask.choices > 1 for ask in mix)
    assert len({ask.id for ask in mix}) == 2000
    assert mix == asks(2000, 7)


def test_what_could_not_be_measured_has_its_marks() -> None:
    for _, without in PARTS.values():
        marks = without("no such thing")
        assert marks
        assert all(mark.value is None and mark.reason == "no such thing" for mark in marks)


def test_when_serve_asked_for_replicas_is_read_from_its_log() -> None:
    log = (
        "INFO 2026-11-28 09:13:13,248 controller 21217 -- "
        "Starting Replica(id='21wz7yp9', deployment='model-bench', app='weir').\n"
        "INFO 2026-11-28 09:13:14,000 controller 21217 -- Adding 1 replica to Deployment.\n"
        "INFO 2026-11-28 09:13:15,748 controller 21217 -- "
        "Starting Replica(id='ocif1eli', deployment='gateway', app='weir').\n"
    )
    asked_s = dict(asked_in(log))
    assert asked_s.keys() == {"21wz7yp9", "ocif1eli"}
    assert asked_s["ocif1eli"] - asked_s["21wz7yp9"] == pytest.approx(2.5)
    assert datetime.fromtimestamp(asked_s["21wz7yp9"]).hour == 9
