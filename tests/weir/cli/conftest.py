"""A `weir` that starts the fake platform, in a state folder and on ports of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from weir.cli import process
from weir.cli.state import State

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_fake_path(folder: Path) -> str:
    """A PYTHONPATH on which `deployments.platform` is the fake."""
    package = folder / "fake" / "deployments"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(HERE / "fake_platform.py", package / "platform.py")
    return os.pathsep.join((str(package.parent), str(ROOT / "platform"), str(ROOT)))


@pytest.fixture
def fake_path(tmp_path: Path) -> str:
    return make_fake_path(tmp_path)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """A state folder; what still runs from it afterwards is killed."""
    held = State(tmp_path / "home")
    yield held
    _kill_all(held)


def _kill_all(held: State) -> None:
    record = held.supervisor()
    if record is not None:
        supervisor = process.find(record)
        for left in [*process.family(record), *([supervisor] if supervisor else [])]:
            left.kill()


@dataclass
class Weir:
    """Runs `weir ARGS` as a person would, in a process of its own."""

    state: State
    env: dict[str, str]
    config: Path
    port: int

    def __call__(
        self, *arguments: str, stdin: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "weir.cli.main", *arguments],
            env=self.env | env,
            cwd=self.config.parent,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def up(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self("up", "--config", str(self.config), *arguments, **env)


def make_weir(folder: Path, fake_path: str) -> Weir:
    env = {key: value for key, value in os.environ.items() if not key.startswith("WEIR_")}
    home = folder / "home"
    env |= {"PYTHONPATH": fake_path, "WEIR_HOME": str(home), "COLUMNS": "120"}
    port = free_port()
    config = folder / "settings.yaml"
    tree = {
        "server": {"port": port, "drain_timeout_s": 0.1},
        "redis": {"port": free_port()},
        "models": [{"name": "fake-model", "source": "builtin:teacher"}],
    }
    config.write_text(yaml.safe_dump(tree))
    return Weir(State(home), env, config, port)


@pytest.fixture
def weir(tmp_path: Path, fake_path: str, state: State) -> Weir:
    """Nothing runs yet; what the test starts is killed after it."""
    return make_weir(tmp_path, fake_path)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weir]:
    """One platform for all tests of a module that only look at it."""
    folder = tmp_path_factory.mktemp("running")
    held = make_weir(folder, make_fake_path(folder))
    up = held.up()
    assert up.returncode == 0, up.stderr
    yield held
    _kill_all(held.state)


@pytest.fixture
def start_fake(
    state: State, fake_path: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], process.ProcessRecord]:
    """Starts the fake platform through `process.start`, in a given mode."""

    def start(mode: str) -> process.ProcessRecord:
        monkeypatch.setenv("PYTHONPATH", fake_path)
        monkeypatch.setenv("FAKE_PLATFORM", mode)
        state.folder.mkdir(parents=True)
        tree = {"server": {"host": "127.0.0.1", "port": free_port()}}
        state.settings_file.write_text(yaml.safe_dump(tree))
        return process.start(state, "token")

    return start
