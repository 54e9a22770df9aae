"""``weir bench autoscale`` on hours instead of days, and the fluid fleet behind it."""

import gzip
import json

import numpy as np
import pytest

from load_tests import bench_autoscale
from load_tests.autoscaling import days
from load_tests.autoscaling.burst import recovery_s
from load_tests.autoscaling.contenders import ON_DEMAND, SPOT, usd_per_request
from load_tests.autoscaling.elastic import drawn, run_requests
from load_tests.autoscaling.engines import LoadRow, ReplicaTable, fine
from load_tests.autoscaling.equal_share import STEPS
from load_tests.autoscaling.fleet import World
from load_tests.autoscaling.fluid import Fluid
from load_tests.autoscaling.measured import table_of
from load_tests.autoscaling.steadiness import steady
from load_tests.autoscaling.traces import Ticks, read_servegen
from load_tests.sim.figures import Slo
from weir.autoscaling.registry import build_policy
from weir.autoscaling.report import Capacity, Decision, Explanation
from weir.planner.serving import Lengths

HEAD = (
    "client,window_start_s,req_per_s,iat_cv,iat_dist,iat_p1,iat_p2,"
    "in_mean,in_p50,in_p90,in_p99,out_mean,out_p50,out_p90,out_p99"
)


@pytest.fixture(autouse=True)
def table(monkeypatch):
    points = (
        LoadRow(0.0, 0.0, 0.0, 1.0, 0.0),
        LoadRow(0.8, 0.4, 0.04, 0.99, 40.0),
        LoadRow(1.2, 3.0, 0.09, 0.0, 120.0),
    )
    table = ReplicaTable(tuple(fine(points)), 10.0, 200, Capacity(1.3e4, 6e3, 0.8))
    monkeypatch.setattr(days, "table_of", lambda *asked: table)
    days._table.cache_clear()
    yield table
    days._table.cache_clear()


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
    plain, equal = ([row for row in told["rows"] if key in row] for key in ("usd", "steps"))
    assert len(plain) == len(equal) == len(told["rows"]) / 2
    for row in plain:
        assert 0 <= row["met_share"] <= 1 + 1e-9
        assert row["usd"] > 0
        assert len(row["grid"]) >= 3
    for row in equal:
        assert [step[0] for step in row["steps"]] == list(STEPS)
        assert row["usd_at_share"] is not None or row["reason"]


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


def test_a_table_is_measured_and_read_back(monkeypatch, tmp_path):
    monkeypatch.setattr("load_tests.autoscaling.engines._LOADS", (0.3, 1.2))
    monkeypatch.setattr("load_tests.autoscaling.engines._REQUESTS", 600)
    lengths = Lengths(400.0, 60.0, 0.0, 1.0)
    asked = ("H100", days._engine("H100", lengths), lengths, 2.0, 0.05)
    made = table_of(*asked, tmp_path / "tables.json")
    assert made.at(0.3).met > 0.95 > made.at(1.2).met
    assert made.at(0.3).streams < made.at(1.2).streams
    assert table_of(*asked, tmp_path / "tables.json").rows[50].met == pytest.approx(
        made.rows[50].met, abs=1e-4
    )


def test_the_fluid_is_checked_request_by_request(kinds, folder):
    few = days.read_days(folder, "m-large", 0.0, 7)
    stretch = drawn(few.tuning.part(0, 600.0), 0.1, 1.0, 3)
    assert len(stretch.requests) == pytest.approx(stretch.ticks.urgent_requests.sum())
    engine, lengths = few.engines[0]
    policy = build_policy("weir", {"headroom": 0.5})
    found = run_requests(kinds[0], engine, lengths, Slo(2.0, 0.05), policy, stretch, 3, 1)
    assert found.urgent == len(stretch.requests)
    assert found.usd > 0
    assert 0 < found.met <= 1


def test_a_burst_is_recovered_from(kinds, folder):
    few = days.read_days(folder, "m-large", 0.0, 7)
    took_s = recovery_s(ON_DEMAND[0], {"headroom": 0.5}, few, 7)
    assert 60 < took_s < 3600


def test_what_may_spill_keeps_the_rest_in_time(kinds):
    class Few:
        def decide(self, model, now_s, state):
            return Decision({model.pools[0].name: 10}, Explanation())

    ticks = _constant(90.0)
    alone = Fluid(World(kinds[:1], 2.0, 0.05), Few(), ticks).run(10)
    spilling = World(kinds[:1], 2.0, 0.05, spill_share=0.15, spill_usd=1e-5)
    helped = Fluid(spilling, Few(), ticks).run(10)
    assert helped.spilt <= 0.15 * helped.urgent + 1e-6
    assert helped.met > alone.met
