"""The live comparison's conversations and figures, against a server that says what it was asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from load_tests.bench_live import _marks, figures_of
from load_tests.live.sessions import Outcome, Plan, Texts, Turn, converse
from load_tests.loadgen import Target

PLAN = Plan(sessions=3, stores=2, turns=3, system_tokens=10, user_tokens=8, think_s=0.005)


def words(text: str) -> int:
    return len(text.split())


async def _serve(handler: Any) -> tuple[web.AppRunner, int]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, runner.addresses[0][1]


async def test_each_turn_repeats_the_conversation_and_adds_to_it() -> None:
    seen: list[list[dict[str, str]]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        seen.append(body["messages"])
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        delta = {"choices": [{"index": 0, "delta": {"content": f"answer {len(seen)}"}}]}
        details = {"cached_tokens": 40}
        usage = {"prompt_tokens": 50, "completion_tokens": 2, "prompt_tokens_details": details}
        for event in (delta, {"choices": [], "usage": usage}):
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    runner, port = await _serve(answer)
    texts = Texts(PLAN, 1, words)
    outcome = await converse(Target("127.0.0.1", port), "m", PLAN, texts, 1, 0.0, 0.5)
    await runner.cleanup()
    assert not outcome.faults
    assert {turn.cached_tokens for turn in outcome.turns} == {40}
    longest = max(seen, key=len)
    assert [message["role"] for message in longest] == [
        "system",
        *["user", "assistant"] * 2,
        "user",
    ]
    assert longest[:-2] in seen, "a turn begins with what the turn before it was asked"
    said = [message["content"] for asked in seen for message in asked[-1:]]
    assert len(said) == len(set(said)), "no user says what another has said"
    figures = figures_of(outcome)
    assert figures["hit_rate"] == pytest.approx(0.8)
    assert figures["turns_per_s"] == len(outcome.turns) / 0.5


async def test_refusals_are_faults_and_no_turns() -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=503, text="full")

    runner, port = await _serve(refuse)
    texts = Texts(PLAN, 1, words)
    outcome = await converse(Target("127.0.0.1", port), "m", PLAN, texts, 1, 0.0, 0.3)
    await runner.cleanup()
    assert not outcome.turns
    assert set(outcome.faults) == {"503: full"}


def test_marks_compare_with_the_best_peer_of_each_figure() -> None:
    def run(ttft_s: float, cached: int) -> Any:
        return figures_of(Outcome(1.0, [Turn(0.0, ttft_s, 1.0, 100, cached, 10)]))

    found = {"weir": [run(0.1, 90)], "sglang": [run(0.2, 60)], "ray-prefix": [run(0.05, 0)]}
    marks = {mark.name: mark for mark in _marks(found, {})}
    assert marks["weir / best peer, hit rate"].value == pytest.approx(1.5)
    assert marks["weir / best peer, TTFT p50"].value == pytest.approx(2.0)
    assert not marks["weir / best peer, TTFT p50"].met
    assert marks["weir / its blind policies, hit rate"].value is None
