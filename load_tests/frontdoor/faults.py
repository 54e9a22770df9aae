"""Faults whose repair takes more than a new process of one part: engines, replicas, Ray, and a
Redis that stands still. Beside each one run short requests, a long stream, and looks at ``weir
status``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from deployments.names import model_deployment
from load_tests.frontdoor.outage import Client, LongStream, Outage, measure
from load_tests.frontdoor.parts import Parts
from load_tests.servers.user_platform import run_weir

ENGINE = "an engine"
FROZEN_ENGINE = "an engine, frozen"
REPLICA = "a replica"
FROZEN_REDIS = "Redis, frozen for 10 s"
NODE_MANAGER = "Ray's node manager"
CONTROL_STORE = "Ray's control store"
THEN_REPLICA = "a replica, after Ray's node manager"
_FROZEN_S = 10.0
_STREAM_TOKENS = 1500
_LOOK_S = 1.0
_WHOLE = "running"
_WHOLE_TIMEOUT_S = 240.0
#: So long a platform has to look whole before it is believed: the first looks may be from before.
_SETTLED_S = 3.0


@dataclass(frozen=True, slots=True)
class Look:
    """What ``weir status`` said at a moment: its word, its exit code, how many replicas run."""

    at_s: float
    state: str
    exit_code: int
    running: int

    @property
    def words(self) -> str:
        return f"{self.state} ({self.exit_code}), {self.running} up"


@dataclass
class Looks:
    """Asks ``weir status`` about once a second, in a thread, until the end of the context."""

    home: Path
    seen: list[Look] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.seen.append(look(self.home))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join(60)

    def whole_after(self, since_s: float, limit_s: float) -> float | None:
        """Seconds until all was there again, and stayed; None if it was not in ``limit_s``."""
        while True:
            whole_s = self._whole_since()
            if whole_s is not None and time.monotonic() - max(whole_s, since_s) > _SETTLED_S:
                return max(0.0, whole_s - since_s)
            if time.monotonic() - since_s > limit_s:
                return None
            time.sleep(0.2)

    def words(self) -> str:
        """What was said, one after the other, without repetitions."""
        return " -> ".join(words for words, _ in itertools.groupby(one.words for one in self.seen))

    def _whole_since(self) -> float | None:
        whole_s = None
        for one in self.seen:
            whole = (one.state, one.running) == (_WHOLE, self.seen[0].running)
            whole_s = (whole_s if whole_s is not None else one.at_s) if whole else None
        return whole_s

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.seen.append(look(self.home))


def look(home: Path) -> Look:
    """What ``weir status`` says now."""
    done = run_weir(home, "status", "--json")
    said: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        said = json.loads(done.stdout)
    deployments = said.get("deployments") or []
    replicas = [replica for one in deployments for replica in one.get("replicas", ())]
    running = sum(replica["state"] == "RUNNING" for replica in replicas)
    return Look(time.monotonic(), str(said.get("state", "silent")), done.returncode, running)


def try_fault(
    client: Client,
    home: Path,
    fault: Callable[[], None],
    calm_s: float = 4.0,
    limit_s: float = _WHOLE_TIMEOUT_S,
) -> tuple[Outage, dict[str, Any]]:
    """What clients saw of a fault, and how long it took until ``weir status`` saw all of it again:
    ``whole_again_s``, to a second or two; None where that took more than ``limit_s``."""
    began_s = 0.0

    def break_it() -> None:
        nonlocal began_s
        began_s = time.monotonic()
        fault()

    with Looks(home) as looks:
        with LongStream(client, _STREAM_TOKENS) as stream:
            outage = measure(client, break_it, calm_s, limit_s=_WHOLE_TIMEOUT_S)
        whole_again_s = looks.whole_after(began_s, limit_s)
    return outage, {
        "whole_again_s": whole_again_s,
        "streams_broken": int(not stream.whole),
        "longest_gap_in_stream_s": stream.longest_gap_s,
        "status_says": looks.words(),
    }


def engine(parts: Parts, model: str) -> psutil.Process:
    """The engine of a replica of the model that runs."""
    for replica in parts.titled(f"ServeReplica:weir:{model_deployment(model)}"):
        for child in replica.children():
            if child.name() == "engine-core":
                return child
    raise LookupError(f"no engine of {model} runs")


def replica(parts: Parts, model: str) -> psutil.Process:
    """A replica of the model that runs."""
    process = engine(parts, model).parent()
    assert process is not None
    return process


def freeze_for_a_while(process: psutil.Process) -> None:
    """Stop it, and let it go on after ten seconds."""
    process.suspend()
    threading.Timer(_FROZEN_S, lambda: _resume(process)).start()


def _resume(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(signal.SIGCONT)
