"""A real Prometheus beside a test or a run: Debian's package ``prometheus``, loopback only."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0

#: A series: its labels, and ``(time, value)`` pairs.
Series = tuple[Mapping[str, str], Sequence[tuple[float, float]]]


def installed() -> bool:
    """Whether the server and promtool are there."""
    return bool(shutil.which("prometheus") and shutil.which("promtool"))


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs."""

    url: str

    def query(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """An instant query: labels and value of each series.

        Raises:
            ValueError: Prometheus refuses the expression.
        """
        answer = self._ask("query", {"query": expression})
        if answer["resultType"] == "scalar":
            return [({}, float(answer["result"][1]))]
        return [(each["metric"], float(each["value"][1])) for each in answer["result"]]

    def value(self, expression: str) -> float | None:
        """The value of an expression with one series; None: it has none."""
        found = self.query(expression)
        assert len(found) <= 1, f"{expression}: {len(found)} series"
        return found[0][1] if found else None

    def range(self, expression: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """Series over a time."""
        asked = {"query": expression, "start": start_s, "end": end_s, "step": step_s}
        return [
            (each["metric"], [(float(at), float(value)) for at, value in each["values"]])
            for each in self._ask("query_range", asked)["result"]
        ]

    def wait(self, condition: Callable[[Prometheus], Any], limit_s: float) -> None:
        """Until it is so.

        Raises:
            TimeoutError: it is not so after ``limit_s``.
        """
        deadline = time.monotonic() + limit_s
        while not condition(self):
            if time.monotonic() > deadline:
                raise TimeoutError("Prometheus does not have it")
            time.sleep(0.1)

    def _ask(self, path: str, parameters: Mapping[str, Any]) -> Any:
        answer = httpx.post(f"{self.url}/api/v1/{path}", data=dict(parameters), timeout=60)
        told = answer.json()
        if told["status"] != "success":
            raise ValueError(f"{parameters['query']}: {told['error']}")
        return told["data"]


@contextlib.contextmanager
def prometheus(
    folder: Path, scrape: Sequence[Mapping[str, Any]], rules: Sequence[Path] = (), every_s: int = 1
) -> Iterator[Prometheus]:
    """Started, and ended afterwards. ``scrape``: Prometheus' ``scrape_configs``; ``folder`` gets
    configuration, data and log.

    Raises:
        RuntimeError: it does not come up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    every = f"{every_s}s"
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [dict(each) for each in scrape],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = _free_port()
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-lifecycle",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}"
            _await_ready(url, process, folder / "prometheus.log")
            yield Prometheus(url)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def promtool(*arguments: str | Path) -> str:
    """What promtool says.

    Raises:
        AssertionError: it is not content.
    """
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    return told


def _await_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/-/ready", timeout=2).status_code == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Prometheus does not come up: {log.read_text()[-2000:]}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
