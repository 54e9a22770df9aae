"""The stub follows from its prompt, so a stream that goes on elsewhere goes on exactly."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from deployments import wire
from deployments.stub_generator import (
    StubGenerator,
    prompt_seed,
    stub_answer,
    stub_token,
)
from weir.errors import BadRequestError

PROMPT = [3, 1, 4, 1, 5]
TOOL = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}


async def run(tokens: int = 6, resume: wire.Resume | None = None, **more: Any) -> list[Any]:
    got: list[Any] = []
    sampling = wire.Sampling(max_tokens=tokens)
    request = wire.Submit(1, "r", more.pop("prompt", PROMPT), sampling, resume=resume, **more)
    await StubGenerator(0.0).submit(request, got.append)
    async with asyncio.timeout(5):
        while not got or not isinstance(got[-1], wire.Done):  # noqa: ASYNC110 - polls
            await asyncio.sleep(0)
    return got


def outputs(got: list[Any]) -> list[Any]:
    return [m for m in got if isinstance(m, wire.Chunk | wire.Done)]


def arguments(got: list[Any]) -> str:
    return "".join(call.arguments for m in outputs(got) for call in m.extra.calls)


async def test_token_and_text_follow_from_prompt_and_place() -> None:
    got = outputs(await run())
    seed = prompt_seed(PROMPT)
    assert [t for m in got for t in m.tokens] == [stub_token(seed, i) for i in range(6)]
    assert "".join(m.text for m in got) == stub_answer(PROMPT, 6)
    assert got[-1].finish_reason == "length"
    assert stub_answer(PROMPT, 6) != stub_answer([*PROMPT, 9], 6)


@pytest.mark.parametrize("cut", range(1, 7))
@pytest.mark.parametrize("held_back", [0, 3])
async def test_a_resumed_stream_goes_on_without_gap_or_repeat(cut: int, held_back: int) -> None:
    whole = outputs(await run())
    tokens = [t for m in whole for t in m.tokens]
    text = "".join(m.text for m in whole)
    sent = max(0, sum(len(m.text) for m in whole[:cut]) - held_back)
    rest = outputs(await run(resume=wire.Resume(tokens[:cut], sent)))
    assert [t for m in rest for t in m.tokens] == tokens[cut:]
    assert text[:sent] + "".join(m.text for m in rest) == text
    assert rest[-1].output_tokens == 6 - cut
    assert rest[-1].prompt_tokens == len(PROMPT)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [("required", "tool_calls"), ({"type": "function", "function": {"name": "lookup"}}, "stop")],
)
async def test_a_forced_tool_call(choice: Any, reason: str) -> None:
    chat = {"tools": [TOOL], "tool_choice": choice}
    got = await run(40, chat=chat)
    assert json.loads(arguments(got))["words"]
    first = next(m for m in outputs(got) if m.extra.calls).extra.calls[0]
    assert first.name == "lookup"
    assert first.id
    assert outputs(got)[-1].finish_reason == reason
    assert "".join(m.text for m in outputs(got)) == ""
    tokens = [t for m in outputs(got) for t in m.tokens]
    sent = len("".join(call.arguments for m in outputs(got)[:3] for call in m.extra.calls))
    rest = await run(40, wire.Resume(tokens[:5], calls=[sent]), chat=chat)
    assert arguments(got)[:sent] + arguments(rest) == arguments(got)
    assert all(not call.name for m in outputs(rest) for call in m.extra.calls)


async def test_json_is_asked_for_and_given() -> None:
    got = outputs(await run(40, chat={"response_format": {"type": "json_object"}}))
    assert json.loads("".join(m.text for m in got))["words"]
    assert got[-1].finish_reason == "stop"


async def test_log_probabilities_of_output_and_prompt() -> None:
    got = outputs(await run(3, logprobs=2, prompt_logprobs=0))
    scored = [s for m in got for s in m.extra.logprobs]
    assert [s.id for s in scored] == [t for m in got for t in m.tokens]
    assert all(len(s.top) == 2 and s.top[0].id == s.id for s in scored)
    prompt = [s for m in got for s in m.extra.prompt_logprobs]
    assert [s.id for s in prompt] == PROMPT
    assert prompt[0].logprob is None


async def test_messages_are_rendered_here() -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}
    started = (await run(3, prompt=[], messages=body))[0]
    assert isinstance(started, wire.Started)
    assert started.prompt_tokens > 0


async def test_a_thousand_streams_take_one_step_at_a_time() -> None:
    stub = StubGenerator(0.0)
    done: list[Any] = []
    for number in range(1000):
        request = wire.Submit(number, str(number), [number], wire.Sampling(max_tokens=5))
        await stub.submit(request, done.append)
    async with asyncio.timeout(20):
        while stub.load().running:  # noqa: ASYNC110 - polls
            await asyncio.sleep(0)
    assert sum(isinstance(m, wire.Done) for m in done) == 1000
    assert stub.load().steps <= 6


@pytest.mark.parametrize(
    ("param", "chat", "sampling"),
    [
        ("structured_outputs.regex", {"structured_outputs": {"regex": "a+"}}, {}),
        ("structured_outputs.choice", {"structured_outputs": {"choice": ["a"]}}, {}),
        ("response_format", {"response_format": {"type": "structural_tag"}}, {}),
        ("allowed_token_ids", None, {"allowed_token_ids": [4]}),
        ("thinking_token_budget", None, {"thinking_token_budget": 4}),
    ],
)
async def test_what_only_a_model_can_do_is_refused_by_name(
    param: str, chat: dict[str, Any] | None, sampling: dict[str, Any]
) -> None:
    request = wire.Submit(1, "r", PROMPT, wire.Sampling(max_tokens=4, **sampling), chat=chat)
    with pytest.raises(BadRequestError) as refused:
        await StubGenerator(0.0).submit(request, lambda message: None)
    assert refused.value.param == param
