"""What counting adds to a request, and how many pass, beside LiteLLM's proxy.

Both stand before the same stand-in for an engine. Two of their tenants ask in turns: one with
quotas and a budget that are never reached, one without. LiteLLM keeps virtual keys and their spend
in PostgreSQL through Prisma, whose engine is a binary that its package downloads at first use
(binaries.prisma.sh). Where that is not to be had, LiteLLM runs without its database: its keys come
from ``custom_auth``, with the same limits and budget, and it counts in Redis; so it does less here
than with a database, where it also writes down what each request has cost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from deployments.redis_server import RedisServer
from load_tests.loadgen import Load, Target, chat_bodies, figures, prompt_texts, run_load
from load_tests.money.platform import MODEL, Shape, running
from load_tests.report import Mark, Row, absent_row, median
from load_tests.servers import (
    EngineWorkload,
    Launch,
    Started,
    StartError,
    Unavailable,
    free_port,
    http_ready,
    start,
)
from load_tests.servers.gateways import peers_python, upstream
from load_tests.servers.workload import SERVED_NAME

TABLE = "beside: counting on and off"
PROCESSES = (1, 4)
_INTERVAL_MS = 2.0
_PROMPT_TOKENS, _OUTPUT_TOKENS = 40, 8
_STREAMS = 32
_WARMUP_S = 2.0
_NEVER_REACHED = {
    "quotas": {
        "requests_per_minute": 10**9,
        "prompt_tokens_per_minute": 10**12,
        "output_tokens_per_minute": 10**12,
        "concurrent_requests": 10**6,
    },
    "budget": {"usd_per_month": 10**6},
}
#: LiteLLM's ``custom_auth``: called for each request with the key that it came with.
_LIMITS = """
from litellm.proxy._types import UserAPIKeyAuth


async def user_api_key_auth(request, api_key):
    if api_key == "{counted}":
        return UserAPIKeyAuth(
            api_key=api_key,
            key_alias="counted",
            rpm_limit=10**9,
            tpm_limit=10**12,
            max_parallel_requests=10**6,
            max_budget=1e6,
            spend=0.0,
        )
    if api_key == "{free}":
        return UserAPIKeyAuth(api_key=api_key, key_alias="free")
    raise ValueError("no such key")
"""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One that answers: as the tenant that is counted, and as the other one. ``started``: its
    processes."""

    counted: Target
    free: Target
    started: Started


@dataclass(frozen=True, slots=True)
class Plan:
    """``rounds`` windows of ``seconds`` of each kind, counted and not in turns."""

    seconds: float
    rounds: int
    bodies: Sequence[bytes]


def beside_rows(
    workload: EngineWorkload, options: argparse.Namespace
) -> tuple[list[Row], list[Mark]]:
    """Both gateways, at one process and at four."""
    texts = prompt_texts(options.seed, 200, _PROMPT_TOKENS, workload.token_counter())
    seconds = options.seconds or (1.0 if options.quick else 5.0)
    rounds = options.rounds or (1 if options.quick else 3)
    plan = Plan(seconds, rounds, chat_bodies(SERVED_NAME, texts, _OUTPUT_TOKENS))
    assert SERVED_NAME == MODEL
    rows: list[Row] = []
    for count in options.processes or PROCESSES:
        for name, opened in (
            ("weir", partial(_weir, workload, count, options.keep_logs)),
            ("LiteLLM", partial(_litellm, count, options.peers_python, options.keep_logs)),
        ):
            system = f"{name}, {count} process{'es' * (count > 1)}"
            try:
                with opened() as gateway:
                    rows.append({"table": TABLE, "system": system, **measure(gateway, plan)})
            except (StartError, Unavailable) as error:
                rows.append({**absent_row(system, str(error)), "table": TABLE})
    return rows, beside_marks(rows)


def measure(gateway: Gateway, plan: Plan) -> dict[str, Any]:
    """Times of one stream after the other, and how many requests a second 32 streams make.

    Raises:
        Unavailable: the gateway's process has ended on the way.
    """
    found: dict[str, list[float]] = {}

    def note(name: str, value: float | None) -> None:
        if value is not None:
            found.setdefault(name, []).append(value)

    errors = 0
    for number in range(plan.rounds):
        for streams in (1, _STREAMS):
            sides = [("counted", gateway.counted), ("free", gateway.free)]
            for name, target in sides if number % 2 == 0 else reversed(sides):
                load = Load(streams, _OUTPUT_TOKENS, _WARMUP_S, plan.seconds)
                outcome = run_load(target, load, plan.bodies)
                if gateway.started.ended():
                    raise Unavailable("its process ended while it was measured")
                told = figures(outcome.samples, outcome.window_s, streams)
                errors += told["errors"]
                if streams == 1:
                    note(f"{name}_ttft_p50_ms", told["ttft_ms_p50"])
                    note(f"{name}_ttft_p99_ms", told["ttft_ms_p99"])
                else:
                    note(f"{name}_requests_per_s", told["req_per_s"])
    medians = {name: median(values) for name, values in found.items()}
    for at in (50, 99):
        pair = [medians.get(f"{name}_ttft_p{at}_ms") for name in ("counted", "free")]
        if pair[0] is not None and pair[1] is not None:
            medians[f"added_p{at}_ms"] = pair[0] - pair[1]
    return {**medians, "errors": errors, "rounds": plan.rounds}


def beside_marks(rows: Sequence[Row]) -> list[Mark]:
    """weir's figures over LiteLLM's."""
    by_name = {row["system"]: row for row in rows}
    marks = []
    for count in PROCESSES:
        at = f"{count} process{'es' * (count > 1)}"
        ours, theirs = by_name.get(f"weir, {at}", {}), by_name.get(f"LiteLLM, {at}", {})
        for what, key, target, better in (
            ("requests a second, counted", "counted_requests_per_s", 1.0, "higher"),
            ("TTFT p50, counted", "counted_ttft_p50_ms", 1.0, "lower"),
        ):
            name = f"{at}: {what}, over LiteLLM's"
            if ours.get(key) and theirs.get(key):
                marks.append(Mark(name, ours[key] / theirs[key], "x", target, better))  # type: ignore[arg-type]
            else:
                reason = str(ours.get("reason") or theirs.get("reason") or "not measured")
                marks.append(Mark(name, None, "x", target, better, reason))  # type: ignore[arg-type]
    alone = by_name.get("weir, 1 process", {})
    added, reason = alone.get("added_p50_ms"), str(alone.get("reason") or "not measured")
    name = "added by counting to a request's TTFT, p50"
    return [*marks, Mark(name, added, "ms", 0.2, "lower", None if added is not None else reason)]


def unmeasured(reason: str) -> list[Mark]:
    """The marks where nothing could be measured."""
    rows = [{"system": f"weir, {n} process{'es' * (n > 1)}", "reason": reason} for n in PROCESSES]
    return beside_marks(rows)


@contextlib.contextmanager
def _weir(workload: EngineWorkload, count: int, keep_logs: Path | None) -> Iterator[Gateway]:
    """weir as it ships, before replicas without an engine."""
    shape = Shape(count, 1, _INTERVAL_MS)
    with running(workload, shape, {"counted": _NEVER_REACHED, "free": {}}, keep_logs) as live:
        target = live.started.target

        def of(tenant: str) -> Target:
            return replace(target, headers=(("Authorization", f"Bearer {live.keys[tenant]}"),))

        yield Gateway(of("counted"), of("free"), live.started)


@contextlib.contextmanager
def _litellm(count: int, python: Path | None, keep_logs: Path | None) -> Iterator[Gateway]:
    """LiteLLM's proxy with so many workers, before the chunk upstream; it counts in a Redis of its
    own."""
    peers = peers_python(python, "litellm")
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as name:
        folder = Path(name)
        redis = RedisServer(folder, free_port(), folder / "log")
        redis.start()
        try:
            launches, target, keys = _litellm_launches(peers, folder, count, redis.url)
            with start(launches, target, keep_logs) as started:
                yield Gateway(_with_key(target, keys[0]), _with_key(target, keys[1]), started)
        finally:
            redis.stop()


def _litellm_launches(
    python: Path, folder: Path, count: int, redis_url: str
) -> tuple[list[Launch], Target, tuple[str, str]]:
    below, below_port = upstream(_INTERVAL_MS)
    port, keys = free_port(), ("sk-counted-by-the-bench", "sk-free-by-the-bench")
    (folder / "limits.py").write_text(_LIMITS.format(counted=keys[0], free=keys[1]), "utf-8")
    host, _, redis_port = redis_url.rpartition("/")[0].rpartition("//")[2].partition(":")
    to = {
        "model": f"openai/{SERVED_NAME}",
        "api_base": f"http://127.0.0.1:{below_port}/v1",
        "api_key": "none",
        "input_cost_per_token": 3e-6,
        "output_cost_per_token": 10e-6,
    }
    config = {
        "model_list": [{"model_name": SERVED_NAME, "litellm_params": to}],
        "general_settings": {
            "custom_auth": "limits.user_api_key_auth",
            "custom_auth_run_common_checks": True,
            "coordination_redis": {"host": host, "port": int(redis_port)},
        },
    }
    file = folder / "litellm.yaml"
    file.write_text(json.dumps(config), "utf-8")
    command = [str(python.with_name("litellm")), "--config", str(file)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", str(count)]
    # Without this it tries to download its price list before it starts.
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(32)}",
    }
    ready = http_ready(port, "/health/liveliness")
    launch = Launch("litellm", command, ready, env, start_timeout_s=120.0)
    return [below, launch], Target("127.0.0.1", port), keys


def _with_key(target: Target, key: str) -> Target:
    return replace(target, headers=(("Authorization", f"Bearer {key}"),))
