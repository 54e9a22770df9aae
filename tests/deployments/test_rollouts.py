"""Candidate versions in a gateway, over real sockets: who gets one, and what the judge is told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from deployments.gateway.plan import CANARY, Course, Outcome, Step, next_step
from fallback.policies import RequestFacts
from weir.errors import NoReplicaError, ReplicaFailedError
from weir.rollouts.course import Rollout
from weir.rollouts.samples import Sample
from weir.rollouts.stream import FIELD, unpacked
from weir.settings.rollout import RolloutSettings
from weir.tenancy import Directory

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello world"}]}
FACTS = RequestFacts("t", "standard")


class Stream:
    """Of redis-py's asyncio client, what tells the judge."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    async def xadd(self, key: str, fields: dict[bytes, bytes], **_: Any) -> None:
        self.samples += unpacked(fields[FIELD])

    async def expire(self, key: str, seconds: int) -> None:
        pass


def _try(world: Any, share: float, mirror: float = 0.0) -> None:
    """From now on ``s`` is tried in the place of ``m``."""
    settings = RolloutSettings(steps=(share,), mirror=mirror)
    rollout = Rollout("r", "m", "s", settings, 0.0, 0.0)
    live = world.gateway.directory
    live.directory = replace(live.directory, rollouts={"m": rollout})


async def _told(world: Any, count: int) -> list[Sample]:
    stream = Stream()
    async with asyncio.timeout(10):
        while len(stream.samples) < count:
            await world.gateway.rollouts.tell(stream)
            await asyncio.sleep(0.01)
    return stream.samples


async def _answer(world: Any, replica: Any, text: str, **more: Any) -> Any:
    """What a client gets when ``replica`` says ``text``."""
    pending = asyncio.ensure_future(world.post({**HELLO, **more}))
    async with asyncio.timeout(10):
        while "r1" not in replica.generator.started:  # noqa: ASYNC110 - another task does it
            await asyncio.sleep(0.005)
    replica.generator.end("r1", text, count=3)
    response = await pending
    assert response.status == 200, await response.text()
    return response


@pytest.fixture
async def world(spilling: Any, make_pair: Any) -> Any:
    return await spilling(make_pair())


async def test_nothing_is_tried_where_there_is_no_rollout(world: Any) -> None:
    live = await world.add_replica("a")
    await world.add_student_replica("z")
    response = await _answer(world, live, "yes")
    assert response.headers["x-weir-model-answered"] == "m"
    stream = Stream()
    await world.gateway.rollouts.tell(stream)
    assert stream.samples == []


async def test_the_candidate_answers_who_is_chosen(world: Any) -> None:
    await world.add_replica("a")
    candidate = await world.add_student_replica("z")
    _try(world, 1.0)
    response = await _answer(world, candidate, "yes")
    assert response.headers["x-weir-model-answered"] == "s"
    assert response.headers["x-weir-spill"] == "canary"
    (sample,) = await _told(world, 1)
    assert (sample.arm, sample.failed, sample.output_tokens) == ("candidate", False, 3)
    assert sample.ttft_s is not None
    assert sample.stratum.startswith("standard:")


async def test_the_model_answers_the_others(world: Any) -> None:
    live = await world.add_replica("a")
    await world.add_student_replica("z")
    _try(world, 0.0, mirror=0.0001)
    await _answer(world, live, "yes")
    (sample,) = await _told(world, 1)
    assert (sample.arm, sample.failed) == ("live", False)


async def test_a_candidate_that_cannot_costs_the_client_nothing(world: Any) -> None:
    """It has no replica; the model answers, and the failure is the candidate's alone."""
    live = await world.add_replica("a")
    _try(world, 1.0)
    response = await _answer(world, live, "yes")
    assert response.headers["x-weir-model-answered"] == "m"
    assert "x-weir-spill" not in response.headers
    (sample,) = await _told(world, 1)
    assert (sample.arm, sample.failed) == ("candidate", True)


@pytest.mark.parametrize(
    ("said", "valid"), [('{"a": 1}', True), ("{a", False)], ids=["json", "broken"]
)
async def test_json_is_looked_at(world: Any, said: str, valid: bool) -> None:
    await world.add_replica("a")
    candidate = await world.add_student_replica("z")
    _try(world, 1.0)
    world.gateway.rollouts._text = lambda model, tokens: said
    await _answer(world, candidate, said, response_format={"type": "json_object"})
    (sample,) = await _told(world, 1)
    assert sample.valid is valid


async def test_a_conversation_stays_with_one_version(world: Any) -> None:
    live = await world.add_replica("a")
    candidate = await world.add_student_replica("z")
    _try(world, 0.5)
    answered: dict[str, set[str]] = {}
    for user in ("u1", "u2", "u3", "u4", "u5", "u6"):
        for _ in range(2):
            pending = asyncio.ensure_future(world.post({**HELLO, "user": user}))
            async with asyncio.timeout(10):
                running = (live.generator.requests, candidate.generator.requests)
                while not any("r1" in each for each in running):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.005)
            who = live if "r1" in live.generator.requests else candidate
            who.generator.end("r1", "yes", count=2)
            response = await pending
            answered.setdefault(user, set()).add(response.headers["x-weir-model-answered"])
            who.generator.requests.clear()
    assert all(len(models) == 1 for models in answered.values())
    assert {model for models in answered.values() for model in models} == {"m", "s"}


@pytest.mark.parametrize("same", [True, False])
async def test_what_is_mirrored_is_compared_and_no_tenants(world: Any, same: bool) -> None:
    live = await world.add_replica("a")
    candidate = await world.add_student_replica("z")
    _try(world, 0.0, mirror=1.0)
    await _answer(world, live, "yes", temperature=0)
    asking = asyncio.ensure_future(world.gateway.rollouts.ask_next(world.gateway))
    async with asyncio.timeout(10):
        while not candidate.generator.requests:  # noqa: ASYNC110 - another task does it
            await asyncio.sleep(0.005)
    (stream_id,) = candidate.generator.requests
    candidate.generator.end(stream_id, "yes", count=3 if same else 4)
    await asking
    samples = await _told(world, 2)
    (mirrored,) = [each for each in samples if each.stratum == "mirrored"]
    assert (mirrored.arm, mirrored.agrees) == ("candidate", same)
    metrics = world.gateway.metrics
    assert metrics.output_tokens.labels("t", "s")._value.get() == 0
    assert metrics.output_tokens.labels("weir-mirror", "s")._value.get() == 3 + (not same)


async def test_answers_that_a_second_try_would_not_repeat_are_not_mirrored(world: Any) -> None:
    live = await world.add_replica("a")
    await world.add_student_replica("z")
    _try(world, 0.0, mirror=1.0)
    await _answer(world, live, "yes", temperature=0.7)
    assert world.gateway.rollouts._mirrored.empty()


def test_after_the_candidate_it_is_as_if_nobody_had_been_asked() -> None:
    course = Course("m", candidate="next")
    first = next_step(course, FACTS, [], 1)
    assert first == Step("next", spill=CANARY)
    assert next_step(course, FACTS, [Outcome(first)], 1) is None
    failed = Outcome(first, NoReplicaError("none"))
    second = next_step(course, FACTS, [failed], 1)
    assert second == Step("m")
    assert next_step(course, FACTS, [failed, Outcome(second, ReplicaFailedError("x"))], 1) is None


def test_a_directory_knows_only_what_makes_a_difference() -> None:
    over = Rollout("r", "m", "s", RolloutSettings(), 0.0, 0.0, state="rolled back")
    assert Directory.of((), rollouts=(over,)).rollouts == {}
