"""Rows of accounts: what reserving and settling add to a request, and how many a second."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployments.redis_server import RedisServer
from load_tests.report import Mark, Row, median
from load_tests.servers import EngineWorkload, free_port
from load_tests.servers.process import bench_environment

TABLE = "accounts: quotas and a budget, real Redis"
_STREAMS = 32
#: Between two requests where they are not to follow each other: other work has the caches then.
PAUSE_S = 0.002
_TIMEOUT_S = 120


def account_rows(
    workload: EngineWorkload, options: argparse.Namespace
) -> tuple[list[Row], list[Mark]]:
    """Medians over rounds; each measurement in fresh processes before a fresh Redis."""
    seconds = options.seconds or (1.0 if options.quick else 5.0)
    rounds = options.rounds or (1 if options.quick else 3)
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for name, count, streams, caller, pause_s in (
            ("one at a time", 1, 0, "usual", PAUSE_S),
            ("one at a time, 21 bounds", 1, 0, "every", PAUSE_S),
            ("one after the other", 1, 0, "usual", 0.0),
            ("1 gateway", 1, _STREAMS, "usual", 0.0),
            ("4 gateways", 4, _STREAMS, "usual", 0.0),
        ):
            found.setdefault(name, []).append(_run(count, streams, seconds, caller, pause_s))
    rows: list[Row] = [
        {
            "table": TABLE,
            "system": f"weir, {name}",
            **{key: median(run[key] for run in runs) for key in runs[0]},
            "rounds": rounds,
        }
        for name, runs in found.items()
    ]
    return rows, account_marks(None, rows[0])


def account_marks(reason: str | None, alone: Row | None = None) -> list[Mark]:
    """Of the usual tenant, one request at a time."""
    marks = []
    for at, target in ((50, 0.2), (99, 1.0)):
        value = None if alone is None else alone[f"reserve_settle_p{at}_us"] / 1e3
        marks.append(Mark(f"reserve + settle p{at}", value, "ms", target, "lower", reason))
    return marks


def _run(count: int, streams: int, seconds: float, caller: str, pause_s: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        redis = RedisServer(Path(folder), free_port(), Path(folder) / "log")
        redis.start()
        try:
            told = _asked(redis.url, count, streams, seconds, caller, pause_s)
        finally:
            redis.stop()
    if "requests_per_s" in told[0]:
        return {"requests_per_s": sum(each["requests_per_s"] for each in told)}
    return told[0]


def _asked(
    url: str, count: int, streams: int, seconds: float, caller: str, pause_s: float
) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "load_tests.money.asking", "--redis", url]
    command += ["--seconds", str(seconds), "--streams", str(streams), "--caller", caller]
    command += ["--pause-s", str(pause_s)]
    children = [_start(command) for _ in range(count)]
    try:
        said: Sequence[str] = [child.communicate(timeout=_TIMEOUT_S)[0] for child in children]
    finally:
        for child in children:
            child.kill()
    told: list[dict[str, float]] = [json.loads(each.splitlines()[-1]) for each in said]
    return told


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    environment: Any = bench_environment({})
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
