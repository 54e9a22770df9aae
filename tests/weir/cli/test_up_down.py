"""`weir up`, `status`, `chat` and `down` as separate processes around the fake platform."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import yaml

from weir.cli import process
from weir.cli.exits import ExitCode
from weir.run_folder import run_folder
from weir.tenancy import KEY_PREFIX, hash_key

if TYPE_CHECKING:
    from conftest import Weir


def test_up_prints_how_to_use_it_and_leaves_it_running(weir: Weir) -> None:
    run = weir.up()
    assert run.returncode == 0, run.stderr
    url = f"http://127.0.0.1:{weir.port}/v1"
    key = weir.state.secrets().demo_key
    assert key.startswith(KEY_PREFIX)
    page = f"http://127.0.0.1:{weir.port}/dashboard"
    for expected in (url, key, "fake-model", "curl", page, str(weir.state.log_file)):
        assert expected in run.stdout
    assert "model fake-model: 1 of 2 replicas running" in run.stderr
    assert process.find(weir.state.supervisor()) is not None
    assert weir("down").returncode == 0
    assert process.find(weir.state.supervisor()) is None


def test_the_printed_curl_line_works_when_pasted(weir: Weir) -> None:
    line = next(text for text in weir.up().stdout.splitlines() if text.startswith("  curl "))
    arguments = shlex.split(line)
    assert arguments[0] == "curl"
    run = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert run.returncode == 0
    assert '"content": "system,' in run.stdout


def test_up_as_json_is_one_object(weir: Weir) -> None:
    held = json.loads(weir.up("--json").stdout)
    assert held["url"] == f"http://127.0.0.1:{weir.port}/v1"
    assert held["key"] == weir.state.secrets().demo_key
    assert held["models"] == ["fake-model"]
    assert held["seconds_to_ready"] == 1.5


def test_only_the_digest_of_the_key_is_in_the_settings(weir: Weir) -> None:
    weir.up()
    text = weir.state.settings_file.read_text()
    key = weir.state.secrets().demo_key
    assert key not in text
    (demo,) = yaml.safe_load(text)["tenants"]
    assert demo["id"] == "demo"
    assert demo["key_sha256"] == [hash_key(key)]


def test_settings_with_tenants_get_no_demo_key(weir: Weir) -> None:
    tree = yaml.safe_load(weir.config.read_text())
    tree["tenants"] = [{"id": "shop", "key_sha256": [hash_key("weir_mine")]}]
    weir.config.write_text(yaml.safe_dump(tree))
    run = weir.up()
    assert run.returncode == 0
    assert "weir_" not in run.stdout
    assert "shop" in run.stdout
    tenants = yaml.safe_load(weir.state.settings_file.read_text())["tenants"]
    assert [tenant["id"] for tenant in tenants] == ["shop"]


def test_the_state_folder_is_private(weir: Weir) -> None:
    weir.up()
    assert weir.state.folder.stat().st_mode & 0o777 == 0o700
    for file in (weir.state.settings_file, weir.state.secrets_file):
        assert file.stat().st_mode & 0o777 == 0o600


def test_bytecode_may_be_written_by_what_up_starts(weir: Weir) -> None:
    weir.up(PYTHONDONTWRITEBYTECODE="1")
    assert "bytecode: True" in weir.state.log_file.read_text()


def test_a_second_up_says_so_and_succeeds(weir: Weir) -> None:
    weir.up()
    before = weir.state.supervisor()
    run = weir.up()
    assert run.returncode == 0
    assert "already running" in run.stderr
    assert f"http://127.0.0.1:{weir.port}/v1" in run.stdout
    assert weir.state.supervisor() == before


def test_a_second_up_with_other_settings_is_a_conflict(weir: Weir) -> None:
    weir.up()
    run = weir.up("--model", "builtin:student")
    assert run.returncode == 4
    assert "other settings" in run.stderr
    assert str(weir.port) in run.stderr
    assert process.find(weir.state.supervisor()) is not None


def test_a_taken_port_is_named_before_anything_starts(weir: Weir) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = weir.up("--port", str(port))
    assert run.returncode == 4
    assert f"port {port} on 127.0.0.1 is taken" in run.stderr
    assert f"pid {os.getpid()}" in run.stderr
    assert weir.state.supervisor() is None
    assert not weir.state.log_file.exists()


def test_a_failed_start_shows_the_log_and_leaves_nothing(weir: Weir) -> None:
    run = weir.up(FAKE_PLATFORM="fail")
    assert run.returncode == 1
    assert "weir did not start: no such model" in run.stderr
    assert "RuntimeError: no such model" in run.stderr
    assert str(weir.state.log_file) in run.stderr
    assert weir("status").returncode == 3


def left_running(weir: Weir) -> list[int]:
    """Processes that have the state folder in their environment."""
    found = []
    for each in psutil.process_iter():
        try:
            if each.environ().get("WEIR_HOME") == str(weir.state.folder) and process.alive(each):
                found.append(each.pid)
        except (psutil.Error, OSError):
            continue
    return found


def test_a_start_that_takes_too_long_is_stopped_whole(weir: Weir) -> None:
    run = weir.up("--timeout", "3", FAKE_PLATFORM="hang")
    assert run.returncode == 1
    assert "weir was not ready after 3 s" in run.stderr
    assert weir.state.supervisor() is None
    assert left_running(weir) == []


def _heed_interrupts() -> None:
    # Whoever runs the tests in the background of a shell has SIGINT ignored, and so has a child.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupting_up_stops_what_it_started(weir: Weir) -> None:
    command = [sys.executable, "-m", "weir.cli.main", "up", "--config", str(weir.config)]
    env = weir.env | {"FAKE_PLATFORM": "hang"}
    with subprocess.Popen(
        command, env=env, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_interrupts
    ) as up:
        child_file = weir.state.folder / "child.pid"
        deadline = time.monotonic() + 60
        while not (child_file.exists() and child_file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        record = weir.state.supervisor()
        up.send_signal(signal.SIGINT)
        _, stderr = up.communicate(timeout=60)
    assert up.returncode == 130
    assert "Interrupted" in stderr
    assert record is not None
    assert process.find(record) is None
    assert process.family(record) == []


def test_no_wait_returns_while_it_starts(weir: Weir) -> None:
    run = weir.up("--no-wait", FAKE_PLATFORM="hang")
    assert run.returncode == 0
    status = weir("status", "--json")
    assert status.returncode == 3
    assert json.loads(status.stdout)["state"] in ("starting", "stopped")
    assert process.find(weir.state.supervisor()) is not None
    assert weir("down").returncode == 0


def test_down_without_a_platform(weir: Weir) -> None:
    run = weir("down")
    assert run.returncode == 3
    assert "not running" in run.stderr
    assert not weir.state.folder.exists()


def test_down_now_hurries_a_stubborn_platform(weir: Weir) -> None:
    weir.up(FAKE_PLATFORM="stubborn")
    run = weir("down", "--now")
    assert run.returncode == 0
    assert process.find(weir.state.supervisor()) is None


def test_down_ends_what_the_supervisor_left_behind(weir: Weir) -> None:
    weir.up(FAKE_PLATFORM="orphan")
    child = int((weir.state.folder / "child.pid").read_text())
    assert child in left_running(weir)
    run = weir("down")
    assert run.returncode == 0
    assert f"pid {child}" in run.stderr
    assert left_running(weir) == []


def test_down_after_the_supervisor_was_killed(weir: Weir) -> None:
    weir.up(FAKE_PLATFORM="orphan")
    record = weir.state.supervisor()
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    status = weir("status")  # the fake is its own gateway, so nothing answers any more
    assert status.returncode == ExitCode.FAILURE
    assert "died: the supervisor" in status.stderr
    run = weir("down")
    assert run.returncode == 0
    assert "had died" in run.stderr
    assert process.family(record) == []
    assert weir("status").returncode == ExitCode.NOT_RUNNING


def test_up_clears_what_a_killed_platform_left(weir: Weir) -> None:
    weir.up(FAKE_PLATFORM="orphan")
    record = weir.state.supervisor()
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    run = weir.up()
    assert run.returncode == 0, run.stderr
    assert "did not end cleanly" in run.stderr
    assert process.family(record) == []


def test_a_process_that_reuses_the_pid_is_left_alone(weir: Weir) -> None:
    weir.up()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        record = json.loads(weir.state.supervisor_file.read_text())
        weir("down")
        record |= {"pid": stranger.pid}
        weir.state.supervisor_file.write_text(json.dumps(record))
        assert weir("down").returncode == 3
        assert stranger.poll() is None
        stranger.kill()


def test_chat_and_status_need_a_platform(weir: Weir) -> None:
    for arguments in (("chat", "-m", "x"), ("status",)):
        run = weir(*arguments)
        assert run.returncode == 3
        assert "weir up" in run.stderr


def test_status_names_what_has_died_and_says_so_by_its_exit_code(weir: Weir) -> None:
    assert weir.up(FAKE_PLATFORM="broken").returncode == 0
    run = weir("status", "--json")
    assert run.returncode == ExitCode.DEGRADED
    held = json.loads(run.stdout)
    assert (held["state"], held["died"]) == ("degraded", ["Redis"])
    assert len(held["deployments"]) == 3
    assert "died: Redis" in run.stderr


def test_down_removes_the_run_folder_also_when_nothing_runs(weir: Weir) -> None:
    folder = run_folder(weir.state.folder)
    folder.mkdir(parents=True)
    (folder / "litter").touch()
    assert weir("down").returncode == ExitCode.NOT_RUNNING
    assert not folder.exists()
    assert weir.up().returncode == 0
    folder.mkdir(parents=True)
    assert weir("down").returncode == 0
    assert not folder.exists()
