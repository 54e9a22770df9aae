"""One real platform for all end-to-end tests, started as a user starts it: ``weir up``."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
import yaml

_UP_TIMEOUT_S = 420


@dataclass(frozen=True)
class RunningPlatform:
    """Where the platform under test is, and how to talk to it."""

    url: str
    key: str
    model: str
    home: Path
    internal_token: str
    admin_key: str
    seconds_to_ready: float
    openai: openai.OpenAI

    def client(self) -> openai.OpenAI:
        """The official client, one for all tests; it must not hide errors behind retries."""
        return self.openai

    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=180
        )

    def http(self) -> httpx.Client:
        """Plain HTTP with the tenant's key."""
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    def weir(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run the command line against this platform."""
        return subprocess.run(
            [sys.executable, "-m", "weir.cli.main", *arguments],
            env=_environment(self.home),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def status(self) -> dict[str, object]:
        result = self.weir("status", "--json")
        assert result.returncode == 0, result.stderr
        return dict(json.loads(result.stdout))

    def metrics(self) -> str:
        """``/metrics``, read with the platform's own token."""
        headers = {"authorization": f"Bearer {self.internal_token}"}
        answer = httpx.get(f"{self.url}/metrics", headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.text

    def engine_running(self) -> float:
        """Sequences running in all engines, from vLLM's own metric."""
        text = self.metrics()
        values = [
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith("vllm:num_requests_running{")
        ]
        assert values, "the gateway relays no vllm:num_requests_running"
        return sum(values)


def _environment(home: Path) -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["WEIR_HOME"] = str(home)
    env["PYTHONPATH"] = os.pathsep.join((str(root / "platform"), str(root)))
    return env


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """The default platform on free ports: gateway, two teacher replicas, a student, Redis."""
    with running_platform(tmp_path_factory.mktemp("weir-home"), {}) as running:
        yield running


@contextmanager
def running_platform(home: Path, sections: dict[str, object]) -> Iterator[RunningPlatform]:
    """A platform of its own, on free ports, with ``sections`` of settings over the default ones."""
    config = home / "e2e.yaml"
    ports = {"server": {"port": _free_port()}, "redis": {"port": _free_port()}}
    config.write_text(yaml.safe_dump({**ports, **sections}))
    weir = [sys.executable, "-m", "weir.cli.main"]
    started = time.monotonic()
    try:
        up = subprocess.run(
            [*weir, "up", "--config", str(config), "--timeout", str(_UP_TIMEOUT_S), "--json"],
            env=_environment(home),
            capture_output=True,
            text=True,
            timeout=_UP_TIMEOUT_S + 60,
            check=False,
        )
        assert up.returncode == 0, f"{up.stdout}\n{up.stderr}"
        said = json.loads(up.stdout)
        client = openai.OpenAI(
            base_url=said["url"], api_key=said["key"], max_retries=0, timeout=120
        )
        secrets = json.loads((home / "secrets.json").read_text())
        yield RunningPlatform(
            url=said["url"].removesuffix("/v1"),
            key=said["key"],
            model=said["models"][0],
            home=home,
            internal_token=secrets["internal_token"],
            admin_key=said["admin_key"],
            seconds_to_ready=time.monotonic() - started,
            openai=client,
        )
        client.close()
    finally:
        subprocess.run(
            [*weir, "down", "--now"],
            env=_environment(home),
            capture_output=True,
            timeout=180,
            check=False,
        )


@pytest.fixture(scope="module")
def with_settings(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[dict[str, object]], AbstractContextManager[RunningPlatform]]:
    """Starts another platform, with other settings."""
    return lambda sections: running_platform(tmp_path_factory.mktemp("weir-home"), sections)
