"""A third model finds a candidate's mirrored answers as likely as the live ones, or not."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from deployments import wire
from deployments.gateway.perplexity import JUDGE
from deployments.gateway.prompts import PromptEncoder
from deployments.stub_generator import StubGenerator
from deployments.testing.world import KEY, World, http_world
from weir.rollouts.course import Rollout
from weir.rollouts.samples import Sample
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.settings.fallback import FallbackSettings
from weir.settings.rollout import RolloutSettings
from weir.tenancy import hash_key

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello world"}]}


@pytest.fixture
async def world(encoder: PromptEncoder) -> AsyncIterator[World]:
    """``s`` is tried in the place of ``m``, and ``j``, whose student is ``s``, judges."""
    settings = Settings(
        models=(
            ModelSettings(name="m", source="x"),
            ModelSettings(name="s", source="x"),
            ModelSettings(name="j", source="x", fallback=FallbackSettings(student="s")),
        ),
        tenants=(TenantSettings(id="t", key_sha256=(hash_key(KEY),)),),
    )
    async with http_world(settings, dict.fromkeys("msj", encoder)) as made:
        yield made


def _try(world: World, **perplexity: Any) -> None:
    judge = {"perplexity": {"model": "j", **perplexity}}
    settings = RolloutSettings.model_validate({"steps": [0.0], "mirror": 1.0, "judge": judge})
    live = world.gateway.directory
    rollout = Rollout("r", "m", "s", settings, 0.0, 0.0)
    live.directory = replace(live.directory, rollouts={"m": rollout})
    # A sampled share must not be a matter of chance here.
    world.gateway.rollouts._rng.seed(1)


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another task does it
            await asyncio.sleep(0.005)


async def _mirrored(world: World, live: Any, candidate: Any, told: int, other: int) -> Any:
    """The live version says so many tokens, and so does the candidate; what it says is then
    scored by whoever judges, in the task that is returned."""
    pending = asyncio.ensure_future(world.post({**HELLO, "temperature": 0.7}))
    await _until(lambda: "r1" in live.generator.started)
    live.generator.end("r1", "", count=told)
    assert (await pending).status == 200
    asking = asyncio.ensure_future(world.gateway.rollouts.ask_next(world.gateway))
    await _until(lambda: candidate.generator.started)
    candidate.generator.end(next(iter(candidate.generator.started)), "", count=other)
    return asking


def _samples(world: World) -> list[Sample]:
    return [s for s in world.gateway.rollouts._samples["r"] if s.arm == "candidate"]


def _score(judge: Any, nats: dict[int, float]) -> dict[int, list[int]]:
    """Answers by the length of the prompt: so many nats for each token of the last ones."""
    prompts = {}
    for request_id in list(judge.generator.started):
        request = judge.generator.requests[request_id]
        length = len(request.prompt)
        prompts[length] = list(request.prompt)
        scored = [wire.Scored(0, "", None)]
        scored += [wire.Scored(0, "", -nats[length]) for _ in range(length - 1)]
        judge.generator.end(request_id, "", 1, wire.Extra(prompt_logprobs=scored))
    return prompts


async def test_both_answers_are_scored_behind_the_same_prompt(world: World) -> None:
    live, candidate = await world.add_replica("a"), await world.add_replica("z", of="s")
    judge = await world.add_replica("j1", of="j")
    _try(world)
    asking = await _mirrored(world, live, candidate, told=3, other=5)
    await _until(lambda: len(judge.generator.started) == 2)
    (asked, _) = judge.generator.requests.values()
    assert asked.prompt_logprobs == 0
    begin = len(asked.prompt) - 3
    prompts = _score(judge, {begin + 3: 0.5, begin + 5: 0.75})
    await asking
    assert prompts[begin + 3][:begin] == prompts[begin + 5][:begin]
    (sample,) = _samples(world)
    assert sample.unlikelier == pytest.approx(0.25)
    assert sample.agrees is None, "answers at this temperature need not agree"
    metrics = world.gateway.metrics
    assert metrics.output_tokens.labels("t", "j")._value.get() == 0
    assert metrics.prompt_tokens.labels(JUDGE, "j")._value.get() == 2 * begin + 8


async def test_equal_answers_are_asked_for_once(world: World) -> None:
    """Of a stub, as the laptop has it."""
    live, candidate = await world.add_replica("a"), await world.add_replica("z", of="s")
    await world.add_replica("j1", StubGenerator(0.0), of="j")
    _try(world)
    await (await _mirrored(world, live, candidate, told=3, other=3))
    (sample,) = _samples(world)
    assert sample.unlikelier == 0.0
    prompt = world.gateway.metrics.prompt_tokens.labels(JUDGE, "j")._value.get()
    assert 3 < prompt < 20


async def test_a_stub_finds_all_equally_likely(world: World) -> None:
    live, candidate = await world.add_replica("a"), await world.add_replica("z", of="s")
    await world.add_replica("j1", StubGenerator(0.0), of="j")
    _try(world)
    await (await _mirrored(world, live, candidate, told=2, other=6))
    (sample,) = _samples(world)
    assert sample.unlikelier is not None
    assert math.isclose(sample.unlikelier, 0.0, abs_tol=1e-9)


@pytest.mark.parametrize("other", [3, 5], ids=["equal", "other"])
async def test_where_the_model_is_away_nothing_counts(
    world: World, caplog: pytest.LogCaptureFixture, other: int
) -> None:
    """Nor do equal answers: they alone would make a bad candidate look good."""
    live, candidate = await world.add_replica("a"), await world.add_replica("z", of="s")
    _try(world)
    with caplog.at_level(logging.INFO, "weir.gateway"):
        await (await _mirrored(world, live, candidate, told=3, other=other))
    (sample,) = _samples(world)
    assert (sample.failed, sample.unlikelier) == (False, None)


async def test_what_another_model_has_scored_does_not_count(world: World) -> None:
    """The one that judges fails, and its student answers in its place."""
    live, candidate = await world.add_replica("a"), await world.add_replica("z", of="s")
    judge = await world.add_replica("j1", of="j")
    _try(world)
    asking = await _mirrored(world, live, candidate, told=3, other=3)
    await _until(lambda: judge.generator.started)
    candidate.generator.requests.clear()
    world.gateway.models["j"].router.set_replicas(())
    await judge.listener.stop()
    await _until(lambda: candidate.generator.started or asking.done())
    for request_id in list(candidate.generator.started):
        length = len(candidate.generator.requests[request_id].prompt)
        scored = [wire.Scored(0, "", -1.0) for _ in range(length)]
        candidate.generator.end(request_id, "", 1, wire.Extra(prompt_logprobs=scored))
    await asking
    (sample,) = _samples(world)
    assert sample.unlikelier is None


async def test_what_it_may_read_is_bounded(world: World) -> None:
    live, candidate = await world.add_replica("a"), await world.add_replica("z", of="s")
    judge = await world.add_replica("j1", of="j")
    _try(world, prompt_tokens_per_minute=1)
    await (await _mirrored(world, live, candidate, told=3, other=5))
    assert judge.generator.requests == {}
    (sample,) = _samples(world)
    assert sample.unlikelier is None


async def test_only_a_share_is_scored(world: World) -> None:
    live, candidate = await world.add_replica("a"), await world.add_replica("z", of="s")
    judge = await world.add_replica("j1", of="j")
    _try(world, share=1e-9)
    await (await _mirrored(world, live, candidate, told=3, other=5))
    assert judge.generator.requests == {}


async def test_an_answer_that_is_empty_is_not_scored(world: World) -> None:
    live, candidate = await world.add_replica("a"), await world.add_replica("z", of="s")
    judge = await world.add_replica("j1", of="j")
    _try(world)
    await (await _mirrored(world, live, candidate, told=3, other=0))
    assert judge.generator.requests == {}


async def test_without_it_only_answers_that_repeat_are_mirrored(world: World) -> None:
    live = await world.add_replica("a")
    settings = RolloutSettings(steps=(0.0,), mirror=1.0)
    directory = world.gateway.directory
    rollout = Rollout("r", "m", "s", settings, 0.0, 0.0)
    directory.directory = replace(directory.directory, rollouts={"m": rollout})
    pending = asyncio.ensure_future(world.post({**HELLO, "temperature": 0.7}))
    await _until(lambda: "r1" in live.generator.started)
    live.generator.end("r1", "", count=2)
    await pending
    assert world.gateway.rollouts._mirrored.empty()


async def test_a_model_that_sleeps_is_asked_for(world: World) -> None:
    """So that the autoscaler wakes it; until then nothing is scored."""
    live, candidate = await world.add_replica("a"), await world.add_replica("z", of="s")
    _try(world)
    await (await _mirrored(world, live, candidate, told=3, other=5))
    waits = world.gateway.models["j"].waking.waiting_work()
    assert [each.requests for each in waits.values()] == [1]
