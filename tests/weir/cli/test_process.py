"""Stopping ends exactly what was started."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from weir.cli import process
from weir.cli.process import ProcessRecord
from weir.cli.state import State

Start = Callable[[str], ProcessRecord]


def wait_for_ready(state: State, record: ProcessRecord) -> None:
    supervisor = process.find(record)
    assert supervisor is not None
    while state.platform() is None:
        assert process.alive(supervisor), state.last_log_lines(20)
        process._pause(supervisor)


def test_a_deaf_supervisor_is_killed_after_its_time(
    state: State, start_fake: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_AFTER_DRAIN_S", 0.2)
    monkeypatch.setattr(process, "_HURRY_S", 0.2)
    record = start_fake("deaf")
    wait_for_ready(state, record)
    result = process.stop(state, record, drain_timeout_s=0.0)
    assert not result.graceful
    assert process.find(record) is None
    assert state.supervisor() is None
    assert state.platform() is None


def test_an_interrupt_hurries_a_stubborn_supervisor(state: State, start_fake: Start) -> None:
    record = start_fake("stubborn")
    wait_for_ready(state, record)
    calls: list[float] = []

    def interrupt_once(seconds: float) -> None:
        calls.append(seconds)
        if len(calls) == 3:
            raise KeyboardInterrupt

    result = process.stop(state, record, drain_timeout_s=600.0, on_wait=interrupt_once)
    assert result.graceful
    assert len(calls) > 3
    assert result.leftovers == ()


def test_the_family_is_found_through_the_run_id(state: State, start_fake: Start) -> None:
    record = start_fake("orphan")
    wait_for_ready(state, record)
    child = int((state.folder / "child.pid").read_text())
    assert [p.pid for p in process.family(record)] == [child]
    supervisor = process.find(record)
    assert supervisor is not None
    supervisor.kill()
    supervisor.wait(timeout=10)
    assert process.find(record) is None
    assert [p.pid for p in process.family(record)] == [child]


def test_a_clock_step_does_not_lose_the_supervisor(state: State, start_fake: Start) -> None:
    record = start_fake("ok")
    wait_for_ready(state, record)
    stepped = ProcessRecord(record.pid, record.create_time - 3600, record.run_id)
    assert process.find(stepped) is not None
    stranger = ProcessRecord(record.pid, record.create_time - 3600, "another run")
    assert process.find(stranger) is None


def test_an_empty_run_id_claims_nobody() -> None:
    with subprocess.Popen(["sleep", "60"], env={process.RUN_ID: ""}) as stranger:
        try:
            assert process.family(ProcessRecord(0, 0.0, "")) == []
            assert process.find(ProcessRecord(stranger.pid, 0.0, "")) is None
        finally:
            stranger.kill()


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen(["true"]) as child:
        supervisor = process.psutil.Process(child.pid)
        while supervisor.status() != process.psutil.STATUS_ZOMBIE:
            pass
        assert not process.alive(supervisor)


def test_relative_import_paths_survive_the_change_of_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "platform:.")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    env = process._environment("run", "token")
    assert all(entry.startswith("/") for entry in env["PYTHONPATH"].split(":"))
    assert "PYTHONDONTWRITEBYTECODE" not in env
    assert env["WEIR_INTERNAL_TOKEN"] == "token"
