"""The routing and priority benches, end to end on tiny inputs, and their marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from load_tests import bench_priority, bench_routing, simulate
from load_tests.routing.marks import marks_of
from load_tests.routing.sweep import Cell, Plan, Scenario
from load_tests.sim.calibrations import H100_8B
from load_tests.sim.engine import EngineConfig
from load_tests.sim.figures import Slo
from load_tests.sim.run import Clock
from load_tests.sim.world import FleetConfig
from load_tests.traces import Trace, TraceRequest

SAMPLES = Path(__file__).parents[2] / "load_tests" / "traces" / "samples"


def test_the_bench_runs_a_given_file_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "out.png"
    arguments = ["--trace", str(SAMPLES / "mooncake.jsonl"), "--replicas", "2", "--rounds", "1"]
    arguments += ["--loads", "0.5", "1.5", "--systems", "weir", "round-robin", "oracle", "--json"]
    assert bench_routing.main([*arguments, "--picture", str(picture)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {(row["system"], row["load"]) for row in report["rows"]} == {
        (system, load) for system in ("weir", "round-robin", "oracle") for load in (0.5, 1.5)
    }
    assert all("goodput_req_per_s" in row for row in report["rows"])
    assert len(report["marks"]) == 6
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_simulate_reads_any_format_and_says_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert simulate.main([str(SAMPLES / "azure.csv"), "--replicas", "1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["requests"] == 3
    with pytest.raises(SystemExit, match="--users"):
        simulate.main([str(SAMPLES / "weka.jsonl")])
    with pytest.raises(SystemExit, match="--blocks"):
        simulate.main([str(SAMPLES / "azure.csv"), "--blocks", "10"])


def test_the_priority_bench_has_every_mark(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        bench_priority.main(["--replicas", "1", "--seconds", "3", "--rounds", "1", "--json"]) == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert len(report["marks"]) == 6
    assert all(mark["value"] is not None for mark in report["marks"])


def cell(system: str, kind: str, load: float, goodput: float, p99: float, hit: float) -> Cell:
    trace = Trace("t", "test", 16, (TraceRequest(0.0, 1, 1),))
    scenario = Scenario(trace, FleetConfig(2, EngineConfig(10, 16), H100_8B))
    figures = {"goodput_req_per_s": goodput, "ttft_p99_ms": p99, "hit_rate": hit}
    return Cell(scenario, load, system, kind, figures, hit, 2e5, system)


def test_marks_compare_with_the_best_peer_and_the_oracle() -> None:
    plan = Plan((0.5, 1.5), (), Slo(1, 1), Clock(), (1,))
    cells = [
        cell("weir", "weir", 0.5, 10, 90, 0.5),
        cell("a", "peer", 0.5, 8, 100, 0.4),
        cell("b", "peer", 0.5, 9, 80, 0.6),
        cell("oracle", "bound", 0.5, 11, 70, 0.5),
        cell("weir", "weir", 1.5, 6, 900, 0.3),
        cell("a", "peer", 1.5, 3, 100, 0.2),
        cell("oracle", "bound", 1.5, 11, 70, 0.4),
    ]
    first, hits, _, tail, overload, speed = marks_of(cells, plan)
    assert first.value == pytest.approx(10 / 9)
    assert hits.value == pytest.approx(0.75)
    assert tail.value == pytest.approx(90 / 80)
    assert overload.value == pytest.approx(2.0)
    assert [mark.met for mark in (first, hits, tail, overload, speed)] == [
        True,
        False,
        False,
        True,
        True,
    ]
    missing = marks_of(cells[:4], Plan((0.5,), (), Slo(1, 1), Clock(), (1,)))[4]
    assert missing.value is None
    assert missing.reason


def test_rows_of_systems_that_are_not_run_come_from_an_earlier_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def report(*more: str) -> dict[str, Any]:
        arguments = ["--trace", str(SAMPLES / "mooncake.jsonl"), "--replicas", "2", "--rounds", "1"]
        assert bench_routing.main([*arguments, "--loads", "0.5", "--json", *more]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    whole = report("--systems", "weir", "round-robin", "oracle")
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps(whole))
    again = report("--systems", "weir", "--others", str(earlier))
    by_system = [{row["system"]: row for row in found["rows"]} for found in (whole, again)]
    assert by_system[0] == by_system[1]
    assert set(by_system[0]) == {"weir", "round-robin", "oracle"}
    marks = [
        {m["name"]: m["value"] for m in found["marks"] if not m["name"].startswith("simulated")}
        for found in (whole, again)
    ]
    assert {name for name in marks[0] if marks[0][name] is None} == {
        name for name in marks[1] if marks[1][name] is None
    }
    known = {name: value for name, value in marks[0].items() if value is not None}
    assert len(known) == 4
    assert known == pytest.approx({name: marks[1][name] for name in known}, rel=1e-2)
    assert "earlier" in again["notes"][-1]
