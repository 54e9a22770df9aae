"""What a gateway tells of demand, and requests for a model that sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from deployments.gateway.demand import SPILLS, Answered, DemandTeller, model_told
from deployments.gateway.ending import Cause, Ending
from deployments.gateway.legs import Attempt
from deployments.gateway.plan import Step
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.record import Record
from deployments.gateway.surplus import Surplus
from deployments.stub_generator import StubGenerator
from deployments.testing.world import KEY, World, http_world
from weir.autoscaling.telling import (
    ModelTold,
    PoolFigures,
    pack_by_model,
    pack_figures,
    unpack,
)
from weir.settings import Settings, parse_settings
from weir.tenancy import hash_key

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hello world"}]}


def settings_of(**scaling: Any) -> Settings:
    tree = {
        "models": [{"name": "m", "source": "x", "autoscaling": {"min_replicas": 0, **scaling}}],
        "tenants": [{"id": "t", "key_sha256": [hash_key(KEY)]}],
        "autoscaling": {"hold_s": 5.0},
    }
    return parse_settings(tree, "test")


@pytest.fixture
async def sleeping(encoder: PromptEncoder) -> AsyncIterator[World]:
    async with http_world(settings_of(), {"m": encoder}) as world:
        yield world


def told(world: World) -> ModelTold:
    answered = world.gateway.parts.answered
    assert answered is not None
    return model_told(world.model, answered, asyncio.get_running_loop().time())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - a report, without an event
            await asyncio.sleep(0.01)


async def test_a_request_for_a_model_that_sleeps_is_held_and_seen(sleeping: World) -> None:
    asking = asyncio.create_task(sleeping.post(dict(BODY)).__aenter__())
    await until(lambda: bool(told(sleeping).classes))
    seen = told(sleeping).classes["standard"]
    assert seen.waiting_requests == 1
    assert seen.waiting_tokens > 0
    assert not asking.done()
    await sleeping.add_replica("r", StubGenerator(0.001))
    answer = await asking
    assert answer.status == 200
    await answer.read()
    assert told(sleeping).classes["standard"].waiting_requests == 0


async def test_answers_under_way_are_told_by_class(sleeping: World) -> None:
    await sleeping.add_replica("r", StubGenerator(0.05))
    asking = asyncio.create_task(sleeping.post({**BODY, "max_tokens": 50}).__aenter__())
    await until(lambda: bool(told(sleeping).generating))
    assert told(sleeping).classes["standard"].generating == 1
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: not told(sleeping).classes["standard"].generating)


async def test_it_is_held_for_so_long_and_no_longer(encoder: PromptEncoder) -> None:
    short = settings_of().model_copy(
        update={"autoscaling": settings_of().autoscaling.model_copy(update={"hold_s": 0.2})}
    )
    async with http_world(short, {"m": encoder}) as world, world.post(dict(BODY)) as answer:
        assert answer.status == 503
        assert "retry-after" in answer.headers


async def test_a_model_that_may_not_sleep_holds_nothing(encoder: PromptEncoder) -> None:
    awake = settings_of(min_replicas=1)
    async with http_world(awake, {"m": encoder}) as world, world.post(dict(BODY)) as answer:
        assert answer.status == 503


async def test_a_client_that_leaves_is_not_held(sleeping: World) -> None:
    asking = asyncio.create_task(sleeping.post(dict(BODY)).__aenter__())
    await until(lambda: bool(told(sleeping).classes))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: not any(c.waiting_requests for c in told(sleeping).classes.values()))


async def test_a_sleeping_model_is_ready(sleeping: World) -> None:
    async with sleeping.session.get(sleeping.url + "/ready") as answer:
        assert answer.status == 200


async def test_arrivals_and_answers_are_counted(sleeping: World) -> None:
    await sleeping.add_replica("r", StubGenerator(0.001))
    for number in range(3):
        async with sleeping.post({**BODY, "id": f"r{number}"}) as answer:
            assert answer.status == 200
            await answer.read()
    report = told(sleeping)
    seen = report.classes["standard"]
    assert seen.arrivals == 3
    assert seen.prompt_tokens >= 9
    assert 3 <= seen.computed_tokens <= seen.prompt_tokens
    assert seen.output_tokens > 0
    assert sum(seen.ttft) == 3
    assert (seen.ttft_judged, seen.ttft_met) == (3, 3)
    assert report.replicas["r"].reached


def test_tpot_is_counted_where_the_class_has_a_limit() -> None:
    answered, record = Answered(), Record("chat", 0.0, model="m")
    attempt = Attempt(Step("m"), [])
    for priority, tpot_s, met in (("fast", 0.04, True), ("fast", 0.06, False), ("slow", 9.0, None)):
        told = {"priority_class": priority, "answered": attempt, "ttft_s": 0.1, "tpot_s": tpot_s}
        answered.count(record, Ending(1.0, 200, Cause.ANSWERED, **told, tpot_met=met))
    fast, slow = answered.by_class["m", "fast"], answered.by_class["m", "slow"]
    assert (fast.tpot_judged, fast.tpot_met) == (2, 1)
    assert (slow.tpot_judged, sum(slow.tpot)) == (0, 1)


class Kept:
    """A Redis hash."""

    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        self.away = False

    async def hset(self, _: str, field: str, value: bytes) -> None:
        if self.away:
            raise ConnectionError
        self.fields[field] = value

    async def get(self, key: str) -> bytes:
        if self.away:
            raise ConnectionError
        if key == SPILLS:
            return pack_by_model({"m": {"standard": 0.25}, "other": {"standard": 0.5}})
        return pack_figures([PoolFigures("m", "m", 3, 6.0, 1.0, 1.0, 0.1, 9.0, 0.0)])

    async def hdel(self, _: str, field: str) -> None:
        self.fields.pop(field, None)


async def test_a_gateway_tells_and_takes_it_back_when_it_ends(sleeping: World) -> None:
    kept = Kept()
    metrics = sleeping.gateway.metrics
    teller = DemandTeller(sleeping.gateway.models, Answered(), kept, lambda: 1000.0, metrics)
    running = asyncio.create_task(teller.run())
    await until(lambda: bool(kept.fields))
    (raw,) = kept.fields.values()
    report = unpack(raw)
    assert report is not None
    assert report.models.keys() == {"m"}
    shown = metrics.autoscaling["target"].labels("m", "m")._value
    await until(lambda: shown.get() == 3)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not kept.fields


async def test_a_gateway_keeps_to_the_decided_share_while_it_hears_of_it(
    sleeping: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.gateway.demand.PERIOD_S", 0.01)
    kept, surplus = Kept(), Surplus(0.2)
    metrics = sleeping.gateway.metrics
    models = sleeping.gateway.models
    teller = DemandTeller(models, Answered(), kept, lambda: 1000.0, metrics, {"m": surplus})
    shown = metrics.spill_share.labels("m", "standard")._value
    running = asyncio.create_task(teller.run())
    await until(lambda: bool(surplus.shares))
    assert surplus.shares == {"standard": 0.2}  # bounded by the settings
    await until(lambda: shown.get() == 0.2)
    assert [surplus.takes("standard", 1) for _ in range(10)].count(True) == 2
    report = teller.told().models["m"].classes["standard"]
    assert (report.may_spill, report.spilt) == (10, 2)
    kept.away = True
    await until(lambda: not surplus.shares)
    await until(lambda: shown.get() == 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_the_share_is_kept_to_one_answer() -> None:
    surplus = Surplus(0.5)
    surplus.decide({"a": 0.07, "b": 0.5})
    for count in range(1, 1001):
        surplus.takes("a", 1)
        assert abs(surplus.taken.get("a", 0) - 0.07 * count) <= 1
    for _ in range(100):
        surplus.takes("b", 4)
    assert surplus.taken["b"] == 200
    assert not surplus.takes("c", 1)
