"""What a gateway keeps of the requests that have ended: bounded, without prompts, as they were."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from deployments.gateway.board import BoardWriter
from deployments.gateway.ending import Cause, Ending
from deployments.gateway.recent import RecentRequests
from deployments.gateway.record import Record
from deployments.live import BOARDS, STRETCH_MS, STRETCHES, WATCHED, Sums, decode, encode

SECRET = "hello world world hello"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 9}


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.005)


async def _asked(world: Any, name: str, replica: Any, **body: Any) -> None:
    pending = asyncio.ensure_future(world.post({**HELLO, "id": name, **body}))
    await _until(lambda: name in replica.generator.started)
    replica.generator.say(name, "Hel", tokens=2)
    await asyncio.sleep(0.02)
    replica.generator.end(name, "lo", count=4)
    response = await pending
    await response.read()


def _writer(world: Any, redis: Any = None) -> BoardWriter:
    return BoardWriter(world.gateway, redis, "g", world.gateway.parts.wall_clock)


def _whole(world: Any) -> Sums:
    whole = Sums()
    for stretch in world.gateway.recent.stretches():
        for row in stretch.rows:
            whole.add(row.sums)
    return whole


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_is_kept_with_its_leg_and_decision(world: Any, stream: bool) -> None:
    replica = await world.add_replica("a")
    await _asked(world, "r1", replica, stream=stream)
    (ended,) = world.gateway.recent.ended()
    assert (ended.id, ended.tenant, ended.status, ended.code) == ("r1", "t", 200, "")
    assert (ended.prompt_tokens, ended.output_tokens) == (8, 4)
    assert ended.ttft_ms is not None
    assert ended.tpot_ms is not None
    assert 0 < ended.ttft_ms < ended.took_ms
    (attempt,) = ended.attempts
    assert (attempt.model, attempt.outcome, attempt.spill) == ("m", "shown", "")
    (leg,) = attempt.legs
    assert (leg.replica, leg.reason, leg.loss) == ("a", "least-expected-work", "")
    assert [each.replica for each in leg.candidates] == ["a"]


async def test_candidates_are_told_best_first(world: Any) -> None:
    first, second = await world.add_replica("a"), await world.add_replica("b")
    busy = asyncio.ensure_future(world.post({**HELLO, "id": "busy", "stream": True}))
    await _until(lambda: "busy" in first.generator.started or "busy" in second.generator.started)
    idle = second if "busy" in first.generator.started else first
    await _asked(world, "r2", idle)
    leg = world.gateway.recent.ended()[0].attempts[0].legs[0]
    assert leg.candidates[0].replica == leg.replica == idle.name
    assert [each.cost for each in leg.candidates] == sorted(each.cost for each in leg.candidates)
    assert leg.candidates[1].prefill_tokens + leg.candidates[1].decode_tokens > 0
    busy.cancel()


async def test_a_stream_that_moved_has_two_legs(world: Any) -> None:
    first, second = await world.add_replica("a"), await world.add_replica("b")
    pending = asyncio.ensure_future(world.post({**HELLO, "id": "r1", "stream": True}))
    await _until(lambda: "r1" in first.generator.started or "r1" in second.generator.started)
    dying, other = (first, second) if "r1" in first.generator.started else (second, first)
    dying.generator.say("r1", "Hel", tokens=2)
    response = await pending
    await dying.listener.stop()
    await _until(lambda: "r1" in other.generator.started)
    other.generator.end("r1", "lo", count=2)
    await response.read()
    await _until(world.gateway.recent.ended)
    (ended,) = world.gateway.recent.ended()
    legs = ended.attempts[0].legs
    assert [(leg.replica, bool(leg.loss)) for leg in legs] == [
        (dying.name, True),
        (other.name, False),
    ]
    assert [leg.output_tokens for leg in legs] == [2, 2]
    assert _whole(world).moved == 1


async def test_a_refusal_is_kept_too(world: Any) -> None:
    response = await world.post({**HELLO, "id": "r1", "model": "nobody"})
    assert response.status == 404
    (ended,) = world.gateway.recent.ended()
    assert (ended.status, ended.code, ended.attempts) == (404, "model_not_found", [])
    whole = _whole(world)
    assert (whole.requests, whole.refused, whole.failed, whole.ttft_met) == (1, 1, 0, 0)


async def test_refusals_push_out_no_decision(world: Any) -> None:
    replica = await world.add_replica("a")
    await _asked(world, "r1", replica)
    refused = Ending(0.0, 429, Cause.REFUSED, "rate_limit_exceeded")
    for number in range(300):
        world.gateway.recent.add(Record("chat", 0.0, id=f"x{number}", tenant="t"), refused)
    ended = world.gateway.recent.ended()
    assert ended[0].id == "r1"
    assert len(ended) == 65


async def test_an_answer_is_judged_by_its_classes_limits(world: Any) -> None:
    replica = await world.add_replica("a")
    await _asked(world, "r1", replica, stream=True)
    whole = _whole(world)
    assert (whole.requests, whole.ttft_met, whole.ttft_missed) == (1, 1, 0)
    assert (whole.tpot_met, whole.tpot_missed) == (0, 0), "no class has a limit for it"
    assert whole.output_tokens == 4


async def test_a_spill_is_counted_by_its_reason(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair())
    replica = await world.add_student_replica("s1")
    await _asked(world, "r1", replica)
    (ended,) = world.gateway.recent.ended()
    assert ended.model == "m"
    assert [(each.model, each.outcome) for each in ended.attempts][-1] == ("s", "shown")
    assert _whole(world).spills == {ended.attempts[-1].spill: 1}
    assert ended.nano_usd > 0


async def test_neither_prompt_nor_answer_is_in_it(world: Any) -> None:
    replica = await world.add_replica("a")
    await _asked(world, "r1", replica)
    written = encode(_writer(world).board())
    assert decode(written).recent[0].id == "r1"
    for word in (b"hello", b"world", b"Hel"):
        assert word not in written


async def test_a_board_has_replicas_and_queues(world: Any) -> None:
    await world.add_replica("a")
    pending = asyncio.ensure_future(world.post({**HELLO, "id": "r1"}))
    replica = world.replicas[0]
    await _until(lambda: "r1" in replica.generator.started)
    board = _writer(world).board()
    assert board.in_flight == {"t": 1}
    assert [(each.id, each.model, each.role) for each in board.replicas] == [("a", "m", "mixed")]
    assert {each.priority_class for each in board.queues} == {"interactive", "standard", "batch"}
    replica.generator.end("r1", "x", count=1)
    await (await pending).read()
    assert _writer(world).board().in_flight == {}


class _Redis:
    def __init__(self) -> None:
        self.there: dict[str, Any] = {}

    async def exists(self, name: str) -> int:
        return int(name in self.there)

    async def hset(self, name: str, key: str, value: bytes) -> int:
        self.there.setdefault(name, {})[key] = value
        return 1

    async def expire(self, name: str, time: int) -> bool:
        return name in self.there


async def test_nothing_is_written_while_nobody_looks(world: Any) -> None:
    redis = _Redis()
    assert not await _writer(world, redis).write()
    assert redis.there == {}
    redis.there[WATCHED] = b"1"
    assert await _writer(world, redis).write()
    assert decode(redis.there[BOARDS]["g"]).gateway == "g"


def test_it_is_bounded_and_forgets() -> None:
    now = [10_000.0]
    recent = RecentRequests(lambda: now[0], lambda: now[0], kept=16)
    for number in range(STRETCHES * 3):
        record = Record("chat", now[0], id=f"r{number}", tenant="t", model="m")
        recent.add(record, Ending(now[0], 200, Cause.ANSWERED))
        now[0] += STRETCH_MS / 1000
    assert [ended.id for ended in recent.ended()] == [f"r{n}" for n in range(86, 90)]
    stretches = recent.stretches()
    assert len(stretches) <= STRETCHES
    assert all(stretch.rows[0].sums.requests == 1 for stretch in stretches)
    now[0] += STRETCH_MS * STRETCHES
    assert recent.stretches() == []
