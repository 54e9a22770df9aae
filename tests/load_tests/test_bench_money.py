"""The bench of money measures what it says, and has every mark."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from load_tests.money import accounts
from load_tests.money.asking import CALLERS, measure
from load_tests.servers import engine_workload, free_port
from tests.deployments.accounts.conftest import started


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

    def run(count: int, streams: int, seconds: float, caller: str) -> dict[str, float]:
        asked.append((count, streams, caller))
        if streams:
            return {"requests_per_s": 100.0 * count}
        us = 150.0 + len(asked) + (1000 if caller == "every" else 0)
        return {"reserve_settle_p50_us": us, "reserve_settle_p99_us": 2 * us}

    monkeypatch.setattr(accounts, "_run", run)
    options = argparse.Namespace(seconds=1.0, rounds=3, quick=False)
    rows, marks = accounts.account_rows(engine_workload(None), options)
    assert len(asked) == 12
    assert [row.get("requests_per_s") for row in rows] == [None, None, 100.0, 400.0]
    assert [(mark.value, mark.met) for mark in marks] == [(0.155, True), (0.31, True)]
