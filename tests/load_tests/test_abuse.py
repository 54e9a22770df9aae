"""The abuse bench: what each abuse sends, and what becomes a mark."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from load_tests.abuse.abuses import ABUSES, Abuse, named
from load_tests.bench_abuse import Seen, marks, row


def _seen(**changes: Any) -> Seen:
    usual: dict[str, Any] = {
        "gaps_s": [0.010] * 10,
        "firsts_s": [0.1],
        "health_s": [0.003],
        "requests": 40,
        "gateway_mb": 300.0,
        "replica_mb": 700.0,
        "window_s": 2.0,
    }
    return Seen(**{**usual, **changes})


@pytest.mark.parametrize("abuse", ABUSES, ids=lambda abuse: abuse.name)
def test_an_abuse_is_a_request_that_a_client_can_send(abuse: Abuse) -> None:
    request = abuse.make("m", 3)
    assert named(abuse.name) is abuse
    assert len(request.body) < 10_000_000
    sent = bool(request.path) and not request.headers and not abuse.slow
    plain = sent and abuse.name != "JSON 100,000 deep"
    if plain:
        assert json.loads(request.body)["model"] == "m"


def test_an_abuse_is_compared_with_the_calm_before_it() -> None:
    calm, idle = _seen(cpu_s={"gateways": 0.2}), _seen(gateway_mb=290.0)
    beside = _seen(
        gaps_s=[0.025] * 5,
        firsts_s=[0.12],
        gateway_mb=350.0,
        failed=2,
        circuits=1,
        cpu_s={"gateways": 0.7, "haproxy": 0.1},
    )
    made = row("4 MB prompt", calm, beside, {"400": 7}, idle)
    by = {mark.name: mark for mark in marks([made], ["python[7]"])}
    assert by["ITL p99 beside: 4 MB prompt"].value == pytest.approx(2.5)
    assert not by["ITL p99 beside: 4 MB prompt"].met
    assert by["TTFT p99 beside: 4 MB prompt"].met
    assert by["memory that a gateway took"].value == 60.0
    assert by["memory that a gateway took"].met
    for name in ("circuits opened", "requests of the victim that failed", "processes that ended"):
        assert not by[name].met
    assert by["processes that ended"].reason == "python[7]"
    assert made["attackers_answers"] == "7×400"
    assert made["gateways_cpu_percent_more"] == pytest.approx(25.0)
    assert made["haproxy_cpu_percent_more"] == pytest.approx(5.0)


def test_turns_are_put_together() -> None:
    all_of_them = Seen()
    all_of_them.add(_seen(circuits=1, cpu_s={"gateways": 1.0}))
    all_of_them.add(_seen(gaps_s=[0.5], gateway_mb=100.0, failed=1))
    assert len(all_of_them.gaps_s) == 11
    assert (all_of_them.requests, all_of_them.failed, all_of_them.circuits) == (80, 1, 1)
    assert all_of_them.gateway_mb == 300.0
    assert all_of_them.cpu_percent("gateways") == pytest.approx(25.0)


def test_a_victim_without_output_is_no_good_mark() -> None:
    made = row("x", _seen(), _seen(gaps_s=[], firsts_s=[]), {}, _seen())
    by = {mark.name: mark for mark in marks([made], [])}
    assert not by["ITL p99 beside: x"].met
    assert by["ITL p99 beside: x"].reason
    assert by["processes that ended"].met


async def test_the_attacker_says_what_was_answered() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        command = [sys.executable, "-m", "load_tests.abuse.attacker"]
        process = await asyncio.create_subprocess_exec(
            *command,
            f"http://127.0.0.1:{port}",
            "key",
            "m",
            "recursive schema",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        for word in (b"go\n", b"enough\n", b"go\n"):
            process.stdin.write(word)
            await process.stdin.drain()
            await asyncio.sleep(0.2)
        said, _ = await process.communicate(b"enough\n")
    counts = json.loads(said)
    assert counts["400"] > 1
    assert process.returncode == 0
