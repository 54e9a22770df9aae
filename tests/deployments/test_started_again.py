"""When a process of Ray's own ends: what goes on, and what the supervisor starts again, and how."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from deployments.cluster import CONTROL_STORE, Cluster
from deployments.ray_watch import RayLost, RayWatch

NODE_MANAGER = "Ray's node manager"

_SCRIPT = """
import json, os, sys
from pathlib import Path
from deployments import platform

class Fake:
    # Loses Ray once, and stops the second time.
    def __init__(self, settings, settings_file, state):
        self.stop_requested = self.apply_requested = platform.threading.Event()
        self.said = state / "said.jsonl"
        self.told = {"lost": os.environ.get("WEIR_STARTED_AGAIN_AFTER", "")}
    def start(self):
        self.told |= {"pid": os.getpid(), "temporary": os.environ.get("TMPDIR", "")}
        self.told["created"] = platform.psutil.Process().create_time()
        self.told["argv"] = sys.orig_argv
        os.environ["TMPDIR"] = "/nowhere"
    def run(self):
        with self.said.open("a") as out:
            out.write(json.dumps(self.told) + "\\n")
        if not self.told["lost"]:
            os.environ["LEFT_BEHIND"] = "of Ray's"
            raise platform.RayLost("Ray's control store")
    def abandon(self, lost):
        self.said.with_name("abandoned").write_text(lost)
    def remove_folder(self):
        pass
    def stop(self):
        self.said.with_name("left behind").write_text(os.environ.get("LEFT_BEHIND", ""))

platform.Platform = Fake
sys.exit(platform.main(sys.argv[1:]))
"""


def test_the_supervisor_begins_anew_under_the_number_that_is_written_down(
    tmp_path: Path, package_env: dict[str, str]
) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("models: [{name: m, source: builtin:student}]\n", "utf-8")
    command = [sys.executable, "-c", _SCRIPT, "--settings", str(settings), "--state", str(tmp_path)]
    started = subprocess.Popen(command, env=package_env | {"TMPDIR": str(tmp_path)})
    assert started.wait(60) == 0
    first, second = map(json.loads, (tmp_path / "said.jsonl").read_text().splitlines())
    assert (first["pid"], second["pid"]) == (started.pid, started.pid)
    assert first["created"] == second["created"]
    assert first["argv"] == second["argv"]
    assert (first["lost"], second["lost"]) == ("", CONTROL_STORE)
    assert (tmp_path / "abandoned").read_text() == CONTROL_STORE
    # Nothing that was put into the environment for the Ray that is gone.
    assert (first["temporary"], second["temporary"]) == (str(tmp_path), str(tmp_path))
    assert (tmp_path / "left behind").read_text() == ""


class _Serving:
    """Looks like a process of Serve's to whoever asks psutil."""

    def __init__(self, words: str) -> None:
        self.words, self.running = words, True

    def cmdline(self) -> list[str]:
        return [self.words]

    def is_running(self) -> bool:
        return self.running

    def status(self) -> str:
        return psutil.STATUS_SLEEPING


def test_without_the_control_store_nothing_is_waited_for() -> None:
    for names in ([CONTROL_STORE], [NODE_MANAGER, CONTROL_STORE]):
        with pytest.raises(RayLost):
            RayWatch(names.copy, list).look()


def test_without_the_node_manager_answers_go_on_until_something_ends() -> None:
    replica, idle = _Serving("ray::ServeReplica:weir:gateway"), _Serving("ray::IDLE")
    serving: Any = [replica, idle]
    watch = RayWatch(lambda: [NODE_MANAGER], lambda: serving)
    watch.look()
    idle.running = False
    watch.look()
    replica.running = False
    with pytest.raises(RayLost, match=NODE_MANAGER):
        watch.look()


def test_a_ray_that_is_whole_is_left_alone(tmp_path: Path) -> None:
    RayWatch(list, list).look()
    cluster = Cluster(cast(Any, None), tmp_path)
    assert (cluster.lost(), cluster.pids()) == ([], {})
    ended, runs = subprocess.Popen(["true"]), subprocess.Popen(["sleep", "60"])
    ended.wait()
    processes = {"gcs_server": ended, "raylet": runs, "log_monitor": ended}
    listed = {kind: [SimpleNamespace(process=process)] for kind, process in processes.items()}
    cluster._node = SimpleNamespace(all_processes=listed)
    assert cluster.lost() == [CONTROL_STORE]
    assert cluster.pids() == {CONTROL_STORE: ended.pid, NODE_MANAGER: runs.pid}
    runs.kill()
    runs.wait()
    assert cluster.lost() == [CONTROL_STORE, NODE_MANAGER]
