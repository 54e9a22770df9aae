"""What one tenant's abuse costs another tenant's interactive streams.

Starts the default platform on free ports for two tenants. Four streams of the one are measured
calm, and beside each abuse by the other: prompts and bodies that are too large, nested or counted
too far, grammars, many choices, tools or biases, slow bodies, idle connections. Calm and abuse take
three turns each, and what was seen beside an abuse is compared with the calm turns before. Beside
the streams, /health is asked twenty times a second. The attacker is a process of its own that gives
way to everybody else; what such a process costs by computing alone, without a request, is the first
row.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import yaml

from load_tests.abuse.abuses import ABUSES, Abuse
from load_tests.frontdoor.parts import GATEWAY, Parts
from load_tests.loadgen import Load, Outcome, Target, chat_bodies, run_load
from load_tests.report import Mark, Report, bench_parser, emit, percentile
from load_tests.servers import unwind_on_sigterm
from load_tests.servers.process import REPOSITORY, bench_environment
from load_tests.servers.user_platform import user_platform
from load_tests.startup.once import free_ports
from weir.tenancy import hash_key, new_key

_STREAMS = 4
_TOKENS = 64
_MODEL = "weir-teacher"
_REPLICA = "ServeReplica:weir:model"
_CIRCUIT = re.compile(r"(?m)^weir_circuit_state\{.*\} (\S+)$")
_HEALTH_EVERY_S = 0.05
_HEALTH_TIMEOUT_S = 20.0
_LOOK_S = 0.25
_TURNS, _CALM_S, _BESIDE_S = 3, 2.5, 4.0
_PARTS = ("gateways", "haproxy", "replicas")


@dataclass(frozen=True, slots=True)
class Running:
    """A platform that answers, the keys of its two tenants, and the one that opens its metrics."""

    url: str
    victim: str
    attacker: str
    watcher: str
    parts: Parts

    @property
    def target(self) -> Target:
        """Where the victim's streams go."""
        place = urlsplit(self.url)
        headers = (
            ("Authorization", f"Bearer {self.victim}"),
            ("x-weir-priority", "interactive"),
        )
        return Target(place.hostname or "", place.port or 80, headers=headers)


@dataclass(slots=True)
class Watcher:
    """Asks /health, and looks at memory and circuits, until it is told to end."""

    running: Running
    health_s: list[float] = field(default_factory=list)
    gateway_mb: float = 0.0
    replica_mb: float = 0.0
    circuits: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """In two threads, while the context lasts."""
        threads = [threading.Thread(target=each) for each in (self._ask, self._look)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        while not self._over.wait(_HEALTH_EVERY_S):
            began_s = time.monotonic()
            self._get("/health", _HEALTH_TIMEOUT_S)
            self.health_s.append(time.monotonic() - began_s)

    def _look(self) -> None:
        gateways = self.running.parts.titled(GATEWAY)
        replicas = self.running.parts.titled(_REPLICA)
        replicas += [child for each in replicas for child in each.children()]
        parts = {
            "gateways": gateways,
            "replicas": replicas,
            "haproxy": [self.running.parts.named("HAProxy")],
        }
        before = {name: _cpu_s(processes) for name, processes in parts.items()}
        while not self._over.wait(_LOOK_S):
            self.gateway_mb = max(self.gateway_mb, _most_mb(gateways))
            self.replica_mb = max(self.replica_mb, _most_mb(replicas))
        self.cpu_s = {name: _cpu_s(parts[name]) - before[name] for name in parts}
        found = _CIRCUIT.findall(self._get("/metrics", _HEALTH_TIMEOUT_S))
        self.circuits = sum(float(state) > 0 for state in found)

    def _get(self, path: str, timeout_s: float) -> str:
        place = urlsplit(self.running.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout_s)
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(connection),
        ):
            headers = {"Authorization": f"Bearer {self.running.watcher}"}
            connection.request("GET", path, headers=headers)
            return connection.getresponse().read().decode("utf-8", "replace")
        return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks."""
    parser = bench_parser("abuse", __doc__)
    parser.add_argument("--only", action="append", metavar="ABUSE", help="leave out all others")
    options = parser.parse_args(argv)
    unwind_on_sigterm()
    abuses = [abuse for abuse in ABUSES if not options.only or abuse.name in options.only]
    turns = 1 if options.quick else _TURNS
    with _platform() as running:
        before = _alive(running)
        _measure(running, 3.0)  # nobody's first requests count
        idle = _measure(running, _CALM_S)
        rows = []
        for abuse in abuses:
            print(abuse.name, file=sys.stderr, flush=True)
            calm, beside = Seen(), Seen()
            with _attacker(running, abuse) as attacker:
                for _ in range(turns):
                    calm.add(_measure(running, _CALM_S))
                    with attacker.at_work():
                        beside.add(_measure(running, _BESIDE_S))
                statuses = attacker.end()
            rows.append(row(abuse.name, calm, beside, statuses, idle))
        ended = sorted(before - _alive(running))
    report = Report("abuse", options.seed, rows, marks(rows, ended))
    return emit(report, options, argv)


@dataclass(slots=True)
class Seen:
    """What the victim saw, in seconds, and what the platform took: memory in MB, and the CPU time
    of its parts; of one turn or of several."""

    gaps_s: list[float] = field(default_factory=list)
    firsts_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    failed: int = 0
    requests: int = 0
    gateway_mb: float = 0.0
    replica_mb: float = 0.0
    circuits: int = 0
    window_s: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)

    def add(self, other: Seen) -> None:
        """Another turn."""
        self.gaps_s += other.gaps_s
        self.firsts_s += other.firsts_s
        self.health_s += other.health_s
        self.failed += other.failed
        self.requests += other.requests
        self.gateway_mb = max(self.gateway_mb, other.gateway_mb)
        self.replica_mb = max(self.replica_mb, other.replica_mb)
        self.circuits = max(self.circuits, other.circuits)
        self.window_s += other.window_s
        for part, taken_s in other.cpu_s.items():
            self.cpu_s[part] = self.cpu_s.get(part, 0.0) + taken_s

    def cpu_percent(self, part: str) -> float:
        """Of a core."""
        return 100 * self.cpu_s.get(part, 0.0) / self.window_s if self.window_s else 0.0


def _measure(running: Running, window_s: float) -> Seen:
    question = [f"Where is my order {number}?" for number in range(8)]
    bodies = chat_bodies(_MODEL, question, _TOKENS)
    watcher = Watcher(running)
    began_s = time.monotonic()
    with watcher.watching():
        outcome = run_load(running.target, Load(_STREAMS, _TOKENS, 0.5, window_s), bodies)
        took_s = time.monotonic() - began_s
    return seen(outcome, watcher, took_s)


def seen(outcome: Outcome, watcher: Watcher, took_s: float) -> Seen:
    """Streams that were cut off at the window's end count with what came until then."""
    samples = [*outcome.samples, *outcome.late]
    return Seen(
        [late - early for s in samples for early, late in pairwise(s.reads_s)],
        [s.ttft_s for s in samples if s.ttft_s is not None],
        watcher.health_s,
        sum(sample.error is not None for sample in samples),
        len(samples),
        watcher.gateway_mb,
        watcher.replica_mb,
        watcher.circuits,
        took_s,
        watcher.cpu_s,
    )


def row(
    name: str, calm: Seen, beside: Seen, statuses: Mapping[str, int], idle: Seen
) -> dict[str, Any]:
    """One abuse. Memory is what it was above that before the first abuse, at most; CPU time is what
    the platform's parts took more than calm."""
    told: dict[str, Any] = {"system": name}
    for what, late, early in (
        ("itl", beside.gaps_s, calm.gaps_s),
        ("ttft", beside.firsts_s, calm.firsts_s),
    ):
        told[f"{what}_p99_over_calm"] = _over(_p99_ms(late), _p99_ms(early))
        told[f"{what}_p99_ms"], told[f"{what}_p99_calm_ms"] = _p99_ms(late), _p99_ms(early)
    for part in _PARTS:
        told[f"{part}_cpu_percent_more"] = beside.cpu_percent(part) - calm.cpu_percent(part)
    return told | {
        "health_p99_ms": _p99_ms(beside.health_s),
        "failed_requests": beside.failed,
        "requests": beside.requests,
        "gateway_took_mb": beside.gateway_mb - idle.gateway_mb,
        "replica_took_mb": beside.replica_mb - idle.replica_mb,
        "circuits_open": beside.circuits,
        "attackers_answers": " ".join(f"{n}×{status}" for status, n in statuses.items()),
    }


def marks(rows: Sequence[Mapping[str, Any]], ended: Sequence[str]) -> list[Mark]:
    """The issue's targets: each abuse's two ratios, and what must not happen at all."""
    listed = []
    for each in rows:
        for what, key in (("ITL p99", "itl_p99_over_calm"), ("TTFT p99", "ttft_p99_over_calm")):
            reason = None if each[key] is not None else "the victim got no output"
            name = f"{what} beside: {each['system']}"
            listed.append(Mark(name, each[key], "× calm", 1.5, "lower", reason))
    most = {
        key: max((each[key] for each in rows), default=0.0)
        for key in ("gateway_took_mb", "replica_took_mb", "circuits_open", "failed_requests")
    }
    return [
        *listed,
        Mark("memory that a gateway took", most["gateway_took_mb"], "MB", 500.0, "lower"),
        Mark("memory that a replica took", most["replica_took_mb"], "MB", 500.0, "lower"),
        Mark("circuits opened", most["circuits_open"], "circuits", 0.0, "lower"),
        Mark(
            "requests of the victim that failed", most["failed_requests"], "requests", 0.0, "lower"
        ),
        Mark(
            "processes that ended",
            float(len(ended)),
            "processes",
            0.0,
            "lower",
            " ".join(ended) or None,
        ),
    ]


def _over(value: float | None, calm: float | None) -> float | None:
    return None if value is None or not calm else value / calm


def _p99_ms(seconds: Sequence[float]) -> float | None:
    found = percentile(seconds, 99)
    return None if found is None else found * 1000


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    taken = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            taken += sum(process.cpu_times()[:2])
    return taken


def _most_mb(processes: Sequence[psutil.Process]) -> float:
    most = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            most = max(most, process.memory_info().rss / 1e6)
    return most


def _alive(running: Running) -> set[str]:
    """Gateways, replicas, engines, HAProxy and Redis."""
    processes = running.parts.titled(GATEWAY) + running.parts.titled(_REPLICA)
    processes += [child for each in processes for child in each.children()]
    processes += [running.parts.named(name) for name in ("HAProxy", "Redis")]
    return {f"{process.name()}[{process.pid}]" for process in processes}


class Attacker:
    """A process that commits an abuse when it is told to. ``process`` has said that it is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """The abuse goes on while the context lasts."""
        self._say("go")
        time.sleep(0.5)
        try:
            yield
        finally:
            self._say("enough")

    def end(self) -> dict[str, int]:
        """How often each status came (0: none)."""
        said, _ = self._process.communicate(timeout=30)
        return dict(json.loads(said))

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def _attacker(running: Running, abuse: Abuse) -> Iterator[Attacker]:
    command = [sys.executable, "-m", "load_tests.abuse.attacker"]
    command += [running.url, running.attacker, _MODEL, abuse.name]
    process = subprocess.Popen(
        ["nice", "-n", "10", *command],
        cwd=REPOSITORY,
        env=bench_environment({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield Attacker(process)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _platform() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="weir-abuse-") as folder:
        home = Path(folder)
        keys = {"victim": new_key(), "attacker": new_key()}
        tenants = [{"id": n, "key_sha256": [hash_key(key)]} for n, key in keys.items()]
        config = home / "bench.yaml"
        watcher = new_key()
        tree: dict[str, Any] = {**free_ports(), "tenants": tenants}
        tree["server"] = {**tree["server"], "metrics": {"key_sha256": [hash_key(watcher)]}}
        config.write_text(yaml.safe_dump(tree), "utf-8")
        with user_platform(home, config) as said:
            url = str(said["url"]).removesuffix("/v1")
            yield Running(url, keys["victim"], keys["attacker"], watcher, Parts(home))


if __name__ == "__main__":
    sys.exit(main())
