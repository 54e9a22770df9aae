"""From rounds to rows and marks: ratios within a round, costs per request and per chunk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from load_tests.dataplane.measure import ALONE, FULL, ONE_TOKEN, SPOKEN, TOOLS, Measured, Round
from load_tests.dataplane.rows import Rounds, hop_rows, kind_rows, marks, system_rows
from load_tests.dataplane.systems import System
from load_tests.loadgen import Sample, figures
from load_tests.report import Mark
from load_tests.servers import Unavailable
from load_tests.servers.accounting import Memory
from load_tests.servers.choosing import chosen
from load_tests.servers.vllm_server import vllm_server
from load_tests.servers.weir_platform import Keys, platform_settings, write_state
from load_tests.servers.workload import EngineWorkload, engine_workload
from weir.settings import load_settings


def nowhere(folder: Path) -> object:
    raise Unavailable(str(folder))


SYSTEMS = tuple(
    System(key, f"system {key}", "engine", nowhere)  # type: ignore[arg-type]
    for key in ("a1", "a2", "b", "c")
)


def measured(req_per_s: float, ttft_ms: float, cpu_us: dict[str, float]) -> Measured:
    """One second in which each request cost ``cpu_us`` by role."""
    count = int(req_per_s)
    samples = [Sample(0.0, 1.0, (ttft_ms / 1000, 1.0), 32, 32, 100)] * count
    cpu_s = {role: each * count / 1e6 for role, each in cpu_us.items()}
    return Measured(figures(samples, 1.0), cpu_s, count, 0.05, ())


def one_round(req_per_s: float, ttft_ms: float) -> Round:
    phases = {
        FULL.name: measured(req_per_s, 40.0, {"gateway": 300 + 32 * 10, "engine": 5000}),
        ONE_TOKEN.name: measured(1000, 20.0, {"gateway": 300 + 10, "engine": 5000}),
        ALONE.name: measured(10, ttft_ms, {"gateway": 1.0}),
    }
    memory = {"gateway": Memory(1, 80.0, 50.0), "engine": Memory(2, 900.0, 700.0)}
    return Round(phases, memory, {"gateway": 0.01}, 12.0)


ROUNDS: Rounds = {
    "a1": {0: one_round(100, 6.0), 1: one_round(200, 6.0), 2: one_round(100, 6.0)},
    "a2": {0: one_round(90, 5.0), 1: one_round(100, 9.0), 2: one_round(110, 5.0)},
    "b": {0: one_round(95, 8.0), 1: one_round(100, 8.5)},
}


def by_name(found: list[Mark]) -> dict[str, Mark]:
    return {mark.name: mark for mark in found}


def test_marks_are_medians_of_ratios_to_the_server_that_is_faster_over_the_rounds() -> None:
    found = by_name(marks(ROUNDS, {"c": "it broke"}))
    ratio = found["weir / faster vLLM server, req/s at 32 streams"]
    assert ratio.value == pytest.approx((0.95 + 0.5) / 2)
    assert not ratio.met
    added = found["weir - faster vLLM server, TTFT p50 at 1 stream"]
    assert added.value == pytest.approx((3.0 - 0.5) / 2)  # a2, whose median is 5 ms, both times
    assert not added.met
    missing = found["weir / Ray Serve LLM default, req/s at 32 streams"]
    assert missing.value is None
    assert missing.reason == "c: it broke"


def test_other_kinds_are_compared_where_both_were_asked_for_them() -> None:
    def with_tools(req_per_s: float) -> Round:
        plain, cpu = one_round(100, 6.0), {"gateway": 500.0, "redis": 1.0}
        return replace(plain, phases={**plain.phases, TOOLS.name: measured(req_per_s, 30.0, cpu)})

    rounds = {"a1": {0: with_tools(40)}, "a2": {0: with_tools(50)}, "b": {0: with_tools(60)}}
    found = by_name(marks(rounds, {}))
    full = "weir / faster vLLM server, req/s at 32 streams"
    assert found[f"{full}, tools"].value == pytest.approx(1.2)
    assert found[f"{full}, logprobs"].value is None
    rows = kind_rows(SYSTEMS, rounds)
    assert [(r["system"], r["asks for"], r["req_per_s"]) for r in rows] == [
        ("system a1", "tools", 40.0),
        ("system a2", "tools", 50.0),
        ("system b", "tools", 60.0),
    ]
    assert rows[0]["cpu_ms: gateway"] == pytest.approx(0.5)
    assert "cpu_ms: redis" not in rows[0]


def test_other_dialects_are_compared_with_the_chat_of_their_round() -> None:
    def speaking(req_per_s: float) -> Round:
        plain = one_round(100, 6.0)
        spoken = {phase.name: measured(req_per_s, 30.0, {"gateway": 500.0}) for phase in SPOKEN}
        return replace(plain, phases={**plain.phases, **spoken})

    rounds = {"b": {0: speaking(90), 1: speaking(98)}, "weir": {0: speaking(97)}}
    found = by_name(marks(rounds, {}))
    full = "req/s at 32 streams"
    assert found[f"weir in messages / in chat, {full}"].value == pytest.approx(0.94)
    assert not found[f"weir in responses / in chat, {full}"].met
    assert found[f"weir gateway alone in responses / in chat, {full}"].met
    systems = (*SYSTEMS, System("weir", "weir gateway", "gateway", nowhere))  # type: ignore[arg-type]
    rows = kind_rows(systems, rounds)
    assert [(r["system"], r["asks for"], r["table"].rpartition(", ")[2]) for r in rows] == [
        ("system b", "responses", "engine behind it"),
        ("weir gateway", "responses", "gateway alone"),
        ("system b", "messages", "engine behind it"),
        ("weir gateway", "messages", "gateway alone"),
    ]


def test_a_peer_that_completes_nothing_is_no_divisor() -> None:
    found = by_name(marks({**ROUNDS, "c": {0: one_round(0, 5.0)}}, {}))
    missing = found["weir / Ray Serve LLM default, req/s at 32 streams"]
    assert missing.value is None
    assert missing.reason == "b or c: no stream was complete within the window"


def test_every_target_is_a_mark_even_when_nothing_ran() -> None:
    found = marks({}, {})
    assert len(found) == len(marks(ROUNDS, {}))
    assert all(mark.value is None and mark.reason for mark in found)


def test_cost_is_solved_per_request_and_per_chunk() -> None:
    rows = {(row["system"], row["hop"]): row for row in hop_rows(SYSTEMS, ROUNDS)}
    gateway = rows["system b", "gateway"]
    assert gateway["us_per_chunk"] == pytest.approx(10)
    assert gateway["us_per_request"] == pytest.approx(300)
    assert gateway["cpu_ms_per_request_of_32_tokens"] == pytest.approx(0.62)
    assert gateway["idle_cpu_percent_of_a_core"] == pytest.approx(1)
    engine = rows["system b", "engine"]
    assert engine["us_per_chunk"] == pytest.approx(0, abs=1e-6)
    assert engine["us_per_request"] == pytest.approx(5000)


def test_a_system_without_rounds_has_null_figures_and_a_reason() -> None:
    rows = {row["system"]: row for row in system_rows(SYSTEMS, ROUNDS, {"c": "it broke"})}
    assert rows["system c"]["req_per_s_at_32_streams"] is None
    assert rows["system c"]["reason"] == "it broke"
    assert rows["system b"]["pss_mb"] == 750
    assert rows["system b"]["rounds"] == 2
    assert rows["system a1"]["req_per_s_at_32_streams"] == 100
    assert set(rows["system c"]) - {"reason"} == set(rows["system b"])


def test_systems_are_chosen_by_key() -> None:
    assert chosen(SYSTEMS, None) == SYSTEMS
    assert [system.key for system in chosen(SYSTEMS, "b, a1")] == ["a1", "b"]
    with pytest.raises(ValueError, match="no system 'x'; known: a1"):
        chosen(SYSTEMS, "a1,x")


def test_engine_arguments_become_options_of_vllms_server() -> None:
    workload = EngineWorkload(
        Path("/m"), "bench", {"max_num_seqs": 64, "enforce_eager": True, "use_tqdm": False}, {}
    )
    assert workload.command_line() == ["--max-num-seqs", "64", "--enforce-eager", "--no-use-tqdm"]
    launches, target = vllm_server(workload, in_process=True)
    assert launches[0].env == {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    assert str(target.port) in launches[0].command
    assert vllm_server(workload, in_process=False)[0][0].env == {}


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no model in"):
        engine_workload(tmp_path)


def test_weirs_settings_are_the_laptops_with_the_workloads_model(tmp_path: Path) -> None:
    laptop = load_settings("laptop")
    workload = EngineWorkload(tmp_path, "bench", {}, {})
    keys = Keys("weir_key", "token")
    settings = platform_settings(workload, {"replicas": 1}, 1234, keys)
    assert settings.server.port == 1234
    assert settings.redis.port != laptop.redis.port
    assert [(m.name, m.source, m.replicas) for m in settings.models] == [
        ("bench", str(tmp_path), 1)
    ]
    assert settings.models[0].engine == laptop.models[0].engine
    state = write_state(settings, keys, tmp_path)
    assert load_settings("laptop", state / "settings.yaml") == settings
    assert "weir_key" not in (state / "settings.yaml").read_text()
    assert (state / "secrets.json").stat().st_mode & 0o077 == 0
