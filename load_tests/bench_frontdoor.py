"""How long nobody is served when a process of the platform is killed.

Starts the default platform on free ports, asks it a one-token request every 20 ms on a kept
connection, kills one process with SIGKILL, and counts from the kill to the end of the last request
that failed. In turn: HAProxy, the gateway that serves, all gateways at once (the standby too),
Redis, Serve's controller, the supervisor. For Redis, a client of its own counts until it answers
again, and whether what it had acknowledged is there. Beside controller and supervisor runs a long
stream, which must end whole.
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

from load_tests.frontdoor.outage import Client, LongStream, Outage, measure
from load_tests.frontdoor.parts import CONTROLLER, GATEWAY, Parts
from load_tests.report import Mark, Report, bench_parser, emit
from load_tests.servers import unwind_on_sigterm
from load_tests.servers.user_platform import run_weir, user_platform
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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks."""
    options = bench_parser("frontdoor", __doc__).parse_args(argv)
    unwind_on_sigterm()
    rounds = 1 if options.quick else 3
    with _platform() as running:
        pss_mb = running.parts.pss_mb()
        found = [row for number in range(rounds) for row in _round(running, number)]
        found += _ends(running)
    rows = medians(found)
    report = Report("frontdoor", options.seed, rows, marks(rows, pss_mb))
    return emit(report, options, argv)


def _round(running: Running, number: int) -> Iterator[dict[str, Any]]:
    print(f"round {number + 1}", file=sys.stderr, flush=True)
    parts, client = running.parts, running.client
    yield _row("HAProxy", measure(client, parts.named("HAProxy").kill))
    yield _row("the active gateway", measure(client, lambda: parts.active_gateway().kill()))
    _await_gateways(parts)
    yield _row("all gateways", measure(client, lambda: _kill_all(parts)))
    _await_gateways(parts)
    yield _redis_row(running)


def _ends(running: Running) -> Iterator[dict[str, Any]]:
    """What can be killed once: its stream is long, and the supervisor does not come back."""
    parts = running.parts
    yield _stream_row(running, "Serve's controller", parts.titled(CONTROLLER)[0].kill)
    yield _stream_row(running, "the supervisor", parts.supervisor.kill)


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


def _redis_row(running: Running) -> dict[str, Any]:
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
    return _row("Redis", outage, redis_back_s=back[0], writes_lost=lost)


def _back_after(client: redis.Redis, began: float) -> float:
    while time.monotonic() - began < _BACK_TIMEOUT_S:
        with contextlib.suppress(RedisError):
            client.incr("frontdoor-back")
            return time.monotonic() - began
        time.sleep(0.01)
    return _BACK_TIMEOUT_S


def _stream_row(running: Running, system: str, kill: Callable[[], None]) -> dict[str, Any]:
    with LongStream(running.client, _STREAM_TOKENS) as stream:
        outage = measure(running.client, kill)
    status = run_weir(running.home, "status", "--json")
    state = json.loads(status.stdout)["state"]
    return _row(
        system,
        outage,
        streams_broken=int(not stream.whole),
        status_says=state,
        status_exit_code=status.returncode,
    )


def medians(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per system: medians of its figures; lost writes, of which none may be, at most."""
    merged = []
    for system in dict.fromkeys(row["system"] for row in rows):
        same = [row for row in rows if row["system"] == system]
        one = dict(same[-1])
        for key, value in one.items():
            if isinstance(value, int | float):
                one[key] = statistics.median(row[key] for row in same)
        one["without_service_s_max"] = max(row["without_service_s"] for row in same)
        if "writes_lost" in one:
            one["writes_lost"] = max(row["writes_lost"] for row in same)
        one["kills"] = len(same)
        merged.append(one)
    return merged


def marks(rows: Sequence[Mapping[str, Any]], pss_mb: float) -> list[Mark]:
    """The issue's targets."""
    by = {row["system"]: row for row in rows}
    broken = sum(by[name]["streams_broken"] for name in ("Serve's controller", "the supervisor"))
    return [
        _seconds("HAProxy killed", by["HAProxy"]["without_service_s"], 2.0),
        _seconds("the gateway killed", by["the active gateway"]["without_service_s"], 3.0),
        _seconds("Redis killed", by["Redis"]["redis_back_s"], 1.0),
        Mark("writes that Redis lost", by["Redis"]["writes_lost"], "writes", 0.0, "lower"),
        Mark("streams broken, controller or supervisor killed", broken, "streams", 0.0, "lower"),
        Mark("PSS of the whole platform, standby included", pss_mb / 1000, "GB", 5.0, "lower"),
    ]


def _seconds(name: str, value: float, target: float) -> Mark:
    return Mark(name, value, "s without service", target, "lower")


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
