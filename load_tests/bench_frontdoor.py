"""How long nobody is served when a process of the platform is killed.

Starts the default platform on free ports, asks it a one-token request every 20 ms on a kept
connection, kills one process with SIGKILL, and counts from the kill to the end of the last request
that failed. In turn: HAProxy, the gateway that serves, all gateways at once (the standby too),
Redis, an engine, a replica, Ray's node manager and control store, Serve's controller, the
supervisor. An engine and Redis are frozen, too (SIGSTOP). For Redis, a client of its own counts
until it answers again, and whether what it had acknowledged is there. Beside all that follow on
Redis runs a long stream, and ``weir status`` is asked what it sees.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import yaml
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from load_tests.frontdoor import faults
from load_tests.frontdoor.faults import engine, freeze_for_a_while, look, replica, try_fault
from load_tests.frontdoor.outage import Client, LongStream, Outage, measure
from load_tests.frontdoor.parts import CONTROLLER, GATEWAY, Parts
from load_tests.report import Mark, Report, bench_parser, emit
from load_tests.servers import unwind_on_sigterm
from load_tests.servers.user_platform import user_platform
from load_tests.startup.once import free_ports

_STREAM_TOKENS = 1500
_BACK_TIMEOUT_S = 60.0
_PATIENCE_S = 90.0


@dataclass(frozen=True, slots=True)
class Running:
    """A platform that answers."""

    client: Client
    parts: Parts
    home: Path
    redis_port: int


Found = tuple[Outage, dict[str, Any]]
Experiment = Callable[[], Found]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks."""
    parser = bench_parser("frontdoor", __doc__)
    parser.add_argument("--only", metavar="WORDS", default="", help="rows with these words")
    options = parser.parse_args(argv)
    unwind_on_sigterm()
    rounds = 1 if options.quick else 3
    with _platform() as running:
        pss_mb = running.parts.pss_mb()
        found = [
            row
            for number in range(rounds)
            for row in _rows(_rounds(running), options.only, f"round {number + 1}")
        ]
        found += _rows(_ends(running), options.only, "once")
    rows = medians(found)
    report = Report("frontdoor", options.seed, rows, marks(rows, pss_mb))
    return emit(report, options, argv)


def _rows(experiments: Mapping[str, Experiment], only: str, turn: str) -> Iterator[dict[str, Any]]:
    for system, experiment in experiments.items():
        if only in system:
            print(f"{turn}: {system}", file=sys.stderr, flush=True)
            outage, more = experiment()
            row = _row(system, outage, **more)
            print(json.dumps(row), file=sys.stderr, flush=True)
            yield row


def _rounds(running: Running) -> dict[str, Experiment]:
    parts, client, home = running.parts, running.client, running.home
    model = client.model

    def measured(kill: Callable[[], None]) -> Experiment:
        def experiment() -> Found:
            found = measure(client, kill), dict[str, Any]()
            _await_gateways(parts)
            return found

        return experiment

    def tried(fault: Callable[[], None], calm_s: float = 4.0) -> Experiment:
        return lambda: try_fault(client, home, fault, calm_s)

    def freeze_redis() -> None:
        freeze_for_a_while(parts.named("Redis"))

    return {
        "HAProxy": measured(lambda: parts.named("HAProxy").kill()),
        "the active gateway": measured(lambda: parts.active_gateway().kill()),
        "all gateways": measured(lambda: _kill_all(parts)),
        "Redis": lambda: _redis(running),
        faults.FROZEN_REDIS: tried(freeze_redis, 14.0),
        faults.ENGINE: tried(lambda: engine(parts, model).kill()),
        faults.FROZEN_ENGINE: tried(lambda: engine(parts, model).suspend(), 20.0),
        faults.REPLICA: tried(lambda: replica(parts, model).kill()),
    }


def _ends(running: Running) -> dict[str, Experiment]:
    """What is killed once: Ray's take the platform with them, the supervisor does not come back."""
    parts, client, home = running.parts, running.client, running.home

    def kill_replica() -> None:
        replica(parts, client.model).kill()

    def rays(kill: Callable[[], None], limit_s: float = 240.0) -> Experiment:
        return lambda: try_fault(client, home, kill, 20.0, limit_s)

    return {
        faults.CONTROL_STORE: rays(lambda: parts.named(faults.CONTROL_STORE).kill()),
        # It does not come back before something else ends.
        faults.NODE_MANAGER: rays(lambda: parts.named(faults.NODE_MANAGER).kill(), 30.0),
        faults.THEN_REPLICA: rays(kill_replica),
        "Serve's controller": lambda: _beside_a_stream(
            running, lambda: parts.titled(CONTROLLER)[0].kill()
        ),
        "the supervisor": lambda: _beside_a_stream(running, parts.supervisor.kill),
    }


def _row(system: str, outage: Outage, **more: Any) -> dict[str, Any]:
    return {
        "system": system,
        "without_service_s": outage.seconds,
        "failed_requests": outage.failed,
        "requests": outage.requests,
        "slowest_request_s": outage.slowest_s,
        "statuses": " ".join(map(str, outage.statuses)),
        **more,
    }


def _redis(running: Running) -> Found:
    # A client that retries would wait for it unseen.
    client = redis.Redis(port=running.redis_port, retry=Retry(NoBackoff(), 0))
    with client:
        acknowledged: Any = [client.incr("frontdoor") for _ in range(500)][-1]
        began, back = 0.0, [0.0]

        def kill() -> None:
            nonlocal began
            running.parts.named("Redis").kill()
            began = time.monotonic()
            back[0] = _back_after(client, began)

        outage = measure(running.client, kill)
        kept: Any = client.get("frontdoor")
    lost = int(acknowledged) - int(kept)
    return outage, {"redis_back_s": back[0], "writes_lost": lost}


def _back_after(client: redis.Redis, began: float) -> float:
    while time.monotonic() - began < _BACK_TIMEOUT_S:
        with contextlib.suppress(RedisError):
            client.incr("frontdoor-back")
            return time.monotonic() - began
        time.sleep(0.01)
    return _BACK_TIMEOUT_S


def _beside_a_stream(running: Running, kill: Callable[[], None]) -> Found:
    with LongStream(running.client, _STREAM_TOKENS) as stream:
        outage = measure(running.client, kill)
    return outage, {
        "streams_broken": int(not stream.whole),
        "longest_gap_in_stream_s": stream.longest_gap_s,
        "status_says": look(running.home).words,
    }


def medians(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per system: medians of its figures; lost writes, of which none may be, at most."""
    merged = []
    for system in dict.fromkeys(row["system"] for row in rows):
        same = [row for row in rows if row["system"] == system]
        one = dict(same[-1])
        for key, value in one.items():
            if isinstance(value, int | float):
                one[key] = statistics.median(row[key] for row in same if row[key] is not None)
        one["without_service_s_max"] = max(row["without_service_s"] for row in same)
        if "writes_lost" in one:
            one["writes_lost"] = max(row["writes_lost"] for row in same)
        one["kills"] = len(same)
        merged.append(one)
    return merged


def marks(rows: Sequence[Mapping[str, Any]], pss_mb: float) -> list[Mark]:
    """The issue's targets."""
    by = {row["system"]: row for row in rows}

    def of(system: str, figure: str) -> Any:
        return by[system][figure] if system in by else None

    unbroken = [of(name, "streams_broken") for name in ("Serve's controller", "the supervisor")]
    broken = None if None in unbroken else sum(unbroken)
    return [
        _seconds("HAProxy killed", of("HAProxy", "without_service_s"), 2.0),
        _seconds("the gateway killed", of("the active gateway", "without_service_s"), 3.0),
        _seconds("Redis killed", of("Redis", "redis_back_s"), 1.0),
        _mark("writes that Redis lost", of("Redis", "writes_lost"), "writes", 0.0),
        _mark("streams broken, controller or supervisor killed", broken, "streams", 0.0),
        Mark("PSS of the whole platform, standby included", pss_mb / 1000, "GB", 5.0, "lower"),
    ]


def _seconds(name: str, value: float | None, target: float) -> Mark:
    return _mark(name, value, "s without service", target)


def _mark(name: str, value: float | None, unit: str, target: float) -> Mark:
    reason = "not asked for (--only)" if value is None else None
    return Mark(name, value, unit, target, "lower", reason=reason)


def _kill_all(parts: Parts) -> None:
    for gateway in parts.titled(GATEWAY):
        gateway.kill()


def _await_gateways(parts: Parts) -> None:
    """Until there are two again, and the new one has had time to be announced."""
    deadline = time.monotonic() + _PATIENCE_S
    while len(parts.titled(GATEWAY)) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(5.0)


@contextlib.contextmanager
def _platform() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="weir-door-") as folder:
        home = Path(folder)
        ports = free_ports()
        config = home / "bench.yaml"
        config.write_text(yaml.safe_dump(ports), "utf-8")
        with user_platform(home, config) as said:
            client = Client(said["url"].removesuffix("/v1"), said["key"], said["models"][0])
            yield Running(client, Parts(home), home, ports["redis"]["port"])


if __name__ == "__main__":
    sys.exit(main())
