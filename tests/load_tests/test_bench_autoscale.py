"""``weir bench autoscale`` on hours instead of days, and the fluid fleet behind it."""

import gzip
import json

import numpy as np
import pytest

from load_tests import bench_autoscale
from load_tests.autoscaling import days
from load_tests.autoscaling.contenders import ON_DEMAND, SPOT, usd_per_request
from load_tests.autoscaling.fluid import Fluid, World
from load_tests.autoscaling.steadiness import steady
from load_tests.autoscaling.traces import Ticks, read_servegen
from weir.autoscaling.registry import build_policy

HEAD = (
    "client,window_start_s,req_per_s,iat_cv,iat_dist,iat_p1,iat_p2,"
    "in_mean,in_p50,in_p90,in_p99,out_mean,out_p50,out_p90,out_p99"
)


@pytest.fixture
def folder(tmp_path):
    rows = [HEAD]
    for window in range(24):
        for client in range(6):
            rate = 10 + 5 * (window % 3) + client
            rows.append(f"{client},{600 * window},{rate},1.0,Gamma,1,1,900,1,1,1,150,1,1,1")
    with gzip.open(tmp_path / "servegen_language_m-large.csv.gz", "wt") as text:
        text.write("\n".join(rows))
    return tmp_path


def test_ticks_have_the_windows_rates(folder):
    ticks = read_servegen(folder / "servegen_language_m-large.csv.gz", 0.3, 7, 15.0)
    assert len(ticks) == 24 * 40
    both = ticks.urgent_requests + ticks.batch_requests
    assert both[:40].sum() == pytest.approx(600 * sum(10 + c for c in range(6)))
    share = ticks.batch_prompts.sum() / (ticks.batch_prompts + ticks.urgent_prompts).sum()
    assert 0.1 < share < 0.5
    assert (ticks.mean_prompt, ticks.mean_output) == (pytest.approx(900), pytest.approx(150))


def test_the_bench_prints_what_each_policy_cost(folder, monkeypatch, capsys):
    monkeypatch.setattr(days, "WEEK_S", 7200.0)
    flags = ["--folder", str(folder), "--traces", "m-large", "--batch-shares", "0.3"]
    flags += ["--checks", "0", "--only-days", "--only", "Ray"]
    code = bench_autoscale.main([*flags, "--json"])
    assert code == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["system"] for row in told["rows"]} == {
        one.name for one in (*ON_DEMAND, *SPOT) if one.name.startswith("Ray")
    }
    for row in told["rows"]:
        assert 0 <= row["met_share"] <= 1 + 1e-9
        assert row["usd"] > 0
        assert len(row["grid"]) >= 3


def _constant(per_s, hours=2):
    count = int(hours * 3600 / 15)
    requests = np.full(count, per_s * 15.0)
    nothing = np.zeros(count)
    return Ticks(15.0, requests, requests * 900, requests * 150, nothing, nothing, nothing)


@pytest.fixture
def kinds(folder):
    return days.read_days(folder, "m-large", 0.0, 7).kinds


def test_constant_demand_is_met_and_paid_for(kinds):
    pools = tuple(kind for kind in kinds if kind.state.market == "on_demand")
    world = World(pools, 2.0, 0.05)
    found = Fluid(world, build_policy("weir", {"headroom": 0.3}), _constant(100.0)).run(20)
    assert found.met > 0.99
    least = 100.0 * 7200 * min(usd_per_request(kind) for kind in pools)
    assert least < found.usd < 4 * least


def test_a_fleet_that_is_too_small_meets_nothing(kinds):
    pools = (kinds[0],)

    class One:
        def decide(self, model, now_s, state):
            from weir.autoscaling.report import Decision, Explanation

            return Decision({model.pools[0].name: 1}, Explanation())

    found = Fluid(World(pools, 2.0, 0.05), One(), _constant(100.0)).run(1)
    assert found.met < 0.05
    assert found.minutes_lost > 100


def test_spot_is_interrupted_and_work_goes_on(kinds):
    contender = SPOT[0]
    pools = contender.pools(kinds)
    world = World(pools, 2.0, 0.05)
    policy = build_policy("weir", {"headroom": 0.5})
    found = Fluid(world, policy, _constant(200.0, 12)).run(40)
    assert found.interrupted > 0
    assert found.met > 0.97


def test_a_week_of_constant_load_changes_nothing(monkeypatch):
    monkeypatch.setattr("load_tests.autoscaling.steadiness._WEEK_S", 86_400.0)
    assert steady(3e5)["changes_after_the_first_hour"] == 0
