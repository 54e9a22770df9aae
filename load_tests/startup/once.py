"""One ``weir up``, timed from outside: from the command's start to a client's first token."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import yaml

from load_tests.loadgen import Load, Target, chat_bodies, run_load
from load_tests.servers import StartError, free_port, memory_by_role
from load_tests.servers.accounting import Memory, cpu_by_role
from load_tests.servers.first_answer import await_first_text
from load_tests.servers.process import MARK, bench_environment, end_family, family_of, processes
from load_tests.startup.stages import Stage, read_stages

UP_TIMEOUT_S = 300
DOWN_TIMEOUT_S = 90
QUESTION = "Where is my order, and when will it arrive?"
OUTPUT_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Start:
    """One start. Seconds count from when ``weir up`` was executed. ``cpu_s``: CPU seconds until the
    first token, by role."""

    up_s: float
    first_token_s: float
    stages: tuple[Stage, ...]
    cpu_s: Mapping[str, float]
    memory_idle: Mapping[str, Memory]
    memory_loaded: Mapping[str, Memory]


def start_once(config: Mapping[str, Any], load_s: float) -> Start:
    """Start a platform with these settings over the laptop profile, ask it, load it, end it.

    Raises:
        StartError: it did not come up, or did not answer.
    """
    mark = secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="weir-up-") as folder:
        home = Path(folder)
        file = home / "bench.yaml"
        file.write_text(yaml.safe_dump(dict(config)), "utf-8")
        env = bench_environment({"WEIR_HOME": str(home / "state"), MARK: mark})
        env.pop("WEIR_CONFIG", None)
        with _ended(env, mark):
            began_s = time.monotonic()
            answer = _up(file, env)
            up_s = time.monotonic() - began_s
            target, body = _request(answer)
            await_first_text(target, body)
            first_token_s = time.monotonic() - began_s
            cpu_s = cpu_by_role(_family(mark, home))
            idle = memory_by_role(_family(mark, home))
            run_load(target, Load(32, OUTPUT_TOKENS, 0.0, load_s), [body])
            loaded = memory_by_role(_family(mark, home))
            stages = read_stages((home / "state" / "progress.jsonl").read_text("utf-8"))
    return Start(up_s, first_token_s, stages, cpu_s, idle, loaded)


def free_ports() -> dict[str, Any]:
    """Settings that move a platform to ports that nobody uses."""
    return {"server": {"port": free_port()}, "redis": {"port": free_port()}}


def _up(config: Path, env: Mapping[str, str]) -> dict[str, Any]:
    command = [*_weir(), "up", "--config", str(config), "--json", "--timeout", str(UP_TIMEOUT_S)]
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=UP_TIMEOUT_S + 30
        )
    except subprocess.TimeoutExpired as error:
        raise StartError(f"weir up took longer than {error.timeout:.0f} s", "") from None
    if done.returncode != 0:
        raise StartError(f"weir up ended with code {done.returncode}", done.stderr[-3000:])
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _request(answer: Mapping[str, Any]) -> tuple[Target, bytes]:
    url = urlsplit(answer["url"])
    assert url.hostname is not None
    assert url.port is not None
    header = ("Authorization", f"Bearer {answer['key']}")
    target = Target(url.hostname, url.port, headers=(header,))
    return target, chat_bodies(answer["models"][0], [QUESTION], OUTPUT_TOKENS)[0]


@contextlib.contextmanager
def _ended(env: Mapping[str, str], mark: str) -> Iterator[None]:
    """Whatever happens within, the platform is stopped afterwards, by force if need be."""
    try:
        yield
    finally:
        home = Path(env["WEIR_HOME"]).parent
        family = processes(_family(mark, home))
        with contextlib.suppress(subprocess.TimeoutExpired):
            command = [*_weir(), "down", "--now"]
            subprocess.run(command, env=env, capture_output=True, timeout=DOWN_TIMEOUT_S)
        end_family(family, mark)


def _family(mark: str, home: Path) -> list[int]:
    """The supervisor and all below it; not this process, nor the command that has ended."""
    roots = []
    with contextlib.suppress(OSError, ValueError, KeyError, psutil.Error):
        record = json.loads((home / "state" / "supervisor.json").read_text("utf-8"))
        roots.append(psutil.Process(int(record["pid"])).pid)
    return [pid for pid in family_of(mark, roots) if pid != os.getpid()]


def _weir() -> list[str]:
    return [sys.executable, "-m", "weir.cli.main"]
