"""Latency and throughput rows: weir, Feast's async client and Feast's feature server, interleaved,
each alone in fresh processes before the same Redis."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from load_tests.features.readers import SYSTEMS
from load_tests.loadgen import Target
from load_tests.report import absent_row, interleave, median
from load_tests.servers import Launch, StartError, free_port, http_ready, start
from load_tests.servers.process import bench_environment

TITLES = {
    "weir-enricher": "weir: look-up, template, placement",
    "weir": "weir: look-up alone",
    "weir-cached": "weir: look-up alone, cache on (Zipf 1.0)",
    "feast-async": "Feast's async client",
    "feast-server": "Feast's Python feature server",
}
TABLE = "one entity, ten features, real Redis"
_FIGURES = ("p50_ms", "p99_ms", "most_per_s")
_TIMEOUT_S = 180


@dataclass(frozen=True, slots=True)
class Setting:
    """What all systems read: a Redis with ``customers`` in it, and Feast's folder."""

    redis_url: str
    folder: Path
    customers: int
    seconds: float
    seed: int


def latency_rows(
    setting: Setting, rounds: int, only: Sequence[str] = tuple(SYSTEMS)
) -> tuple[list[dict[str, Any]], list[dict[str, dict[str, Any]]]]:
    """One row per system (medians over rounds), and the rounds themselves by system."""
    found: list[dict[str, dict[str, Any]]] = [{} for _ in range(rounds)]
    missing: dict[str, str] = {}
    for number, system in interleave(list(only), rounds):
        try:
            with _server(setting, system) as server:
                found[number][system] = _drive(setting, system, server, number)
        except (StartError, subprocess.SubprocessError) as error:
            missing[system] = str(error)
            print(f"round {number + 1}, {TITLES[system]}: {error}", file=sys.stderr, flush=True)
            continue
        say = found[number][system]
        print(
            f"round {number + 1}, {TITLES[system]}: p50 {say['p50_ms']:.3f} ms,"
            f" p99 {say['p99_ms']:.2f} ms, {say['most_per_s']:.0f}/s",
            file=sys.stderr,
            flush=True,
        )
    rows = []
    for system in only:
        have = [each[system] for each in found if system in each]
        if not have:
            rows.append({**absent_row(TITLES[system], missing[system], _FIGURES), "table": TABLE})
            continue
        figures = {key: median(each[key] for each in have) for key in have[0]}
        rows.append({"system": TITLES[system], **figures, "rounds": len(have), "table": TABLE})
    return rows, found


def _drive(setting: Setting, system: str, server: str | None, number: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "load_tests.features.readers", "--system", system]
    command += ["--redis", setting.redis_url, "--folder", str(setting.folder)]
    command += ["--customers", str(setting.customers), "--seconds", str(setting.seconds)]
    command += ["--seed", str(setting.seed + number)]
    if server is not None:
        command += ["--server", server]
    run = subprocess.run(
        command, env=bench_environment({}), capture_output=True, text=True, timeout=_TIMEOUT_S
    )
    if run.returncode:
        last = run.stderr.strip().splitlines()[-1:] or ["no output"]
        raise subprocess.SubprocessError(last[0])
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer


@contextmanager
def _server(setting: Setting, system: str) -> Iterator[str | None]:
    """Feast's server where it is asked for; its worker is not recycled meanwhile, which would
    cost it seconds per thousand requests."""
    if system != "feast-server":
        yield None
        return
    port = free_port()
    repository = setting.folder / "server"
    write_feast_yaml(setting, repository)
    feast = str(Path(sys.executable).parent / "feast")
    command = [feast, "-c", str(repository), "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--no-access-log", "--max-requests", "0", "--max-requests-jitter", "0"]
    launch = Launch("feast", command, http_ready(port), start_timeout_s=120)
    with start([launch], Target("127.0.0.1", port)):
        yield f"http://127.0.0.1:{port}"


def write_feast_yaml(setting: Setting, repository: Path) -> None:
    """The repository's file for Feast's own command line."""
    from features.repo import store_config

    repository.mkdir(exist_ok=True)
    config = store_config(setting.redis_url, setting.folder)
    tree: Mapping[str, Any] = {
        "project": config.project,
        "provider": "local",
        "registry": str(setting.folder / "registry.db"),
        "online_store": {
            "type": "redis",
            "connection_string": config.online_store.connection_string,
        },
        "entity_key_serialization_version": 3,
    }
    (repository / "feature_store.yaml").write_text(yaml.safe_dump(dict(tree)), "utf-8")
