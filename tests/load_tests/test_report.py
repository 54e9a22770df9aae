"""The one shape that every bench prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from load_tests.report import (
    Machine,
    Mark,
    Report,
    absent_row,
    bench_parser,
    emit,
    interleave,
    median,
    percentile,
    round_figures,
    tables,
)

MACHINE = Machine(cores=2, memory_gib=23.46, gpu=None)


def a_report(**changes: object) -> Report:
    given_fields: dict[str, object] = {
        "bench": "demo",
        "seed": 3,
        "rows": [
            {"system": "a", "req_per_s": 123.456},
            absent_row("b", "not installed", ["req_per_s"]),
            {"table": "hops", "system": "a", "hop": "front", "us_per_request": 750.0},
        ],
        "marks": [Mark("speed", 123.456, "req/s", 100, "higher")],
        "machine": MACHINE,
        "version": "9.9",
    }
    return Report(**(given_fields | changes))  # type: ignore[arg-type]


def test_the_json_object_has_the_agreed_keys_and_rounded_figures() -> None:
    form = a_report(command="weir bench demo").as_dict()
    assert list(form) == ["bench", "version", "machine", "seed", "command", "rows", "marks"]
    assert form["machine"] == {"cores": 2, "memory": "23.5 GiB", "gpu": None}
    assert form["rows"][0] == {"system": "a", "req_per_s": 123.5}
    assert form["rows"][1] == {"system": "b", "req_per_s": None, "reason": "not installed"}
    mark = form["marks"][0]
    assert list(mark) == ["name", "value", "unit", "target", "better", "met"]
    assert mark["met"] is True


def test_a_machine_that_shares_cores_by_session_is_said_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Latencies from there mean little, so whoever reads the result must see it."""
    machine = Machine(2, 23.46, None, autogroup=True)
    options = bench_parser("demo", "").parse_args(["--json"])
    emit(a_report(machine=machine), options, [])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["machine"]["autogroup"] is True
    assert "sched_autogroup_enabled" in printed.err
    emit(a_report(), options, [])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("value", "better", "met"),
    [
        (1.0, "higher", True),
        (0.9999, "higher", False),
        (1.0, "lower", True),
        (1.0001, "lower", False),
    ],
)
def test_a_mark_is_met_on_its_target_and_on_its_good_side(
    value: float, better: str, met: bool
) -> None:
    assert Mark("m", value, "", 1.0, better).met is met  # type: ignore[arg-type]


def test_met_is_decided_before_rounding() -> None:
    form = Mark("m", 0.899999, "", 0.9, "higher").as_dict()
    assert form["value"] == 0.9
    assert form["met"] is False


def test_a_mark_that_was_not_measured_must_say_why() -> None:
    with pytest.raises(ValueError, match="reason"):
        Mark("m", None, "ms", 1, "lower")
    mark = Mark("m", None, "ms", 1, "lower", reason="no peer")
    assert mark.as_dict()["met"] is False
    assert mark.as_dict()["reason"] == "no peer"


def test_broken_reports_are_refused() -> None:
    with pytest.raises(ValueError, match="no measurement"):
        Mark("m", float("nan"), "ms", 1, "lower")
    with pytest.raises(ValueError, match="better"):
        Mark("m", 1.0, "ms", 1, "smaller")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="system"):
        a_report(rows=[{"req_per_s": 1.0}])
    twice = Mark("m", 1.0, "ms", 1, "lower")
    with pytest.raises(ValueError, match="twice"):
        a_report(marks=[twice, twice])


def test_emit_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "demo.json"
    argv = ["--json", "--out", str(out)]
    options = bench_parser("demo", "A demo.").parse_args(argv)
    assert emit(a_report(), options, argv) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text("utf-8"))
    assert printed["command"] == f"weir bench demo --json --out {out}"


def test_tables_group_rows_and_show_what_is_missing() -> None:
    report = a_report(
        marks=[
            Mark("speed", 123.456, "req/s", 200, "higher"),
            Mark("delay", None, "ms", 3, "lower", reason="no [peer]"),
        ]
    )
    console = Console(width=160)
    with console.capture() as capture:
        for table in tables(report):
            console.print(table)
    text = capture.get()
    assert [t.title for t in tables(report)] == ["demo", "demo: hops", "marks"]
    assert "not installed" in text
    assert "not measured (no [peer])" in text
    assert "≥ 200 req/s" in text


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100))
def test_percentiles_lie_within_the_values(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found is not None
    assert min(values) - 1e-6 <= found <= max(values) + 1e-6
    assert percentile(values, 50) == pytest.approx(median(values))


def test_percentiles_of_known_values() -> None:
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert percentile(range(101), 90) == 90
    assert percentile([], 50) is None
    assert median([]) is None
    with pytest.raises(ValueError, match=r"0\.\.100"):
        percentile([1], 101)


@given(st.integers(0, 5), st.integers(0, 6))
def test_interleaving_gives_every_system_every_round(systems: int, rounds: int) -> None:
    order = list(interleave(range(systems), rounds))
    assert sorted(order) == [(r, s) for r in range(rounds) for s in range(systems)]
    if rounds >= 2 and systems >= 2:
        assert order[0][1] != order[systems][1]


def test_rounding_keeps_whole_parts_and_json_valid() -> None:
    assert round_figures(123456.7) == 123457
    assert round_figures(0.00123456) == 0.001235
    assert round_figures(float("inf")) is None
    assert round_figures({"a": [1.23456, 7, "x", None]}) == {"a": [1.235, 7, "x", None]}


def test_a_table_with_many_figures_has_a_line_for_each_of_them() -> None:
    figures = {f"figure_{number}_ms": float(number) for number in range(12)}
    report = a_report(
        rows=[{"system": "left", **figures}, absent_row("right", "too slow", figures)]
    )
    console = Console(width=100)
    with console.capture() as capture:
        console.print(next(iter(tables(report))))
    text = capture.get()
    line = next(line for line in text.splitlines() if "figure_11_ms" in line)
    assert "11" in line.replace("figure_11_ms", "")
    assert "–" in line
    assert "right: too slow" in text
