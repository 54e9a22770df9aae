"""The control process as a process: small, without Ray and vLLM, started and stopped."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from deployments.control_server import ControlServer
from tests.deployments.control.world import OPERATOR, settings_of
from weir.errors import ConfigError
from weir.settings.admin import AdminSettings

_MOST_MIB = 150
_TIMEOUT_S = 60


def test_it_imports_neither_ray_nor_an_engine(package_env: dict[str, str]) -> None:
    code = (
        "import sys, deployments.control.__main__; "
        "print(sorted({'ray', 'vllm', 'torch', 'feast', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=package_env, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.fixture
def place(
    tmp_path: Path,
    empty_database: Path,
    package_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A state folder with settings and a database."""
    shutil.copy(empty_database, tmp_path / "weir.db")
    settings = settings_of().model_dump(mode="json")
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("PYTHONPATH", package_env["PYTHONPATH"])
    monkeypatch.delenv("WEIR_DATABASE_URL", raising=False)
    return tmp_path


def _server(place: Path, admin: AdminSettings) -> ControlServer:
    return ControlServer(admin, place / "settings.yaml", place, place)


@pytest.fixture
def server(place: Path) -> Iterator[ControlServer]:
    made = _server(place, AdminSettings())
    yield made
    made.stop()


def _await_up(server: ControlServer) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not server.up():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _ask(server: ControlServer) -> httpx.Response:
    assert server.address is not None
    transport = httpx.HTTPTransport(uds=server.address.removeprefix("unix:"))
    with httpx.Client(transport=transport, base_url="http://control") as client:
        return client.get(
            "/admin/v1/tenants", headers={"authorization": f"Bearer {OPERATOR}"}, timeout=30
        )


def test_it_answers_is_small_comes_again_and_ends(server: ControlServer, place: Path) -> None:
    server.start()
    _await_up(server)
    assert [each["id"] for each in _ask(server).json()["data"]] == ["listed"]
    assert server.pid is not None
    process = psutil.Process(server.pid)
    assert process.memory_info().rss < _MOST_MIB * 1024 * 1024
    assert (place / "control.sock").stat().st_mode & 0o077 == 0
    process.kill()
    server.wait()
    assert not process.is_running()
    time.sleep(1.0)  # one that ends at once is not started again at once
    server.start()
    _await_up(server)
    assert _ask(server).status_code == 200
    pid = server.pid
    server.stop()
    assert pid is not None
    assert not psutil.pid_exists(pid)


def test_a_process_that_ends_at_once_is_told_and_not_started_in_a_loop(
    server: ControlServer, place: Path
) -> None:
    (place / "settings.yaml").write_text("models: []")
    server.start()
    with pytest.raises(ConfigError, match="control process"):
        _await_up(server)
    server._started_s = time.monotonic()
    with pytest.raises(ConfigError, match="as soon as"):
        server.start()


def test_it_may_have_a_port_of_its_own(place: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = _server(place, AdminSettings(port=port))
    assert server.address is None
    try:
        server.start()
        _await_up(server)
        answer = httpx.get(f"http://127.0.0.1:{port}/health")
        assert answer.json() == {"status": "ok"}
    finally:
        server.stop()
