"""LoRA adapters: names and tenants at the gateway, slots in the replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from deployments import wire
from deployments.adapters import AdapterBusyError, AdapterSlots, engine_arguments
from deployments.gateway.prompts import PromptEncoder
from deployments.streams import Abort, Put
from deployments.testing.scripted import ScriptedGenerator
from deployments.testing.world import KEY, World, http_world
from weir.adapters import AdapterFiles
from weir.errors import NotFoundError
from weir.settings import ModelSettings, PriceSettings, Settings, TenantSettings
from weir.settings.fallback import FallbackSettings
from weir.settings.tree import AdapterSettings
from weir.tenancy import hash_key

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
OTHER_KEY = "weir_other"
DEAR = PriceSettings(output_usd_per_million_tokens=1000.0)


def _settings(cold: str = "wait") -> Settings:
    adapters = (
        AdapterSettings(name="shared", source="/a/shared", aliases=("house",), price=DEAR),
        AdapterSettings(name="own", source="/a/own", tenants=("other",)),
    )
    model = ModelSettings.model_validate(
        {"name": "m", "source": "x", "adapters": adapters, "on_cold_adapter": cold}
    )
    tenants = (
        TenantSettings(id="t", key_sha256=(hash_key(KEY),)),
        TenantSettings(id="other", key_sha256=(hash_key(OTHER_KEY),)),
    )
    return Settings(models=(model,), tenants=tenants)


@pytest.fixture(params=["wait"])
async def adapted(encoder: PromptEncoder, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with http_world(_settings(request.param), {"m": encoder}) as world:
        yield world


async def _started(generator: ScriptedGenerator, name: str) -> wire.Submit:
    async with asyncio.timeout(5):
        while name not in generator.started:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    request = generator.requests[name]
    assert isinstance(request, wire.Submit)
    return request


@pytest.mark.parametrize("name", ["m:shared", "house"])
async def test_an_adapter_is_asked_for_by_name_or_alias(adapted: World, name: str) -> None:
    replica = await adapted.add_replica("a")
    asking = asyncio.ensure_future(adapted.post({**CHAT, "model": name}).__aenter__())
    submit = await _started(replica.generator, "r1")
    assert submit.adapter == wire.Adapter("shared", "/a/shared")
    replica.generator.end("r1", "hello", 3)
    answer = await asking
    assert answer.status == 200
    assert answer.headers["x-weir-model-answered"] == "m:shared"
    assert (await answer.json())["model"] == "m:shared"
    metrics = adapted.gateway.metrics
    assert metrics.cost.labels("t", "m")._value.get() == pytest.approx(3 * 1000 / 1e6)


async def test_every_dialect_resolves_the_name(adapted: World) -> None:
    replica = await adapted.add_replica("a")
    bodies: dict[str, dict[str, Any]] = {
        "/v1/completions": {"prompt": "hello", "max_tokens": 2},
        "/v1/responses": {"input": "hello", "max_output_tokens": 4},
        "/v1/messages": {**CHAT},
    }
    for number, (path, body) in enumerate(bodies.items()):
        name = f"d{number}"
        made = adapted.post({**body, "model": "house", "id": name}, path)
        asking = asyncio.ensure_future(made.__aenter__())
        submit = await _started(replica.generator, name)
        assert submit.adapter is not None
        assert submit.adapter.key == "shared"
        replica.generator.end(name, "hello")
        answer = await asking
        assert answer.status == 200
        assert (await answer.json())["model"] == "m:shared"


@pytest.mark.parametrize("name", ["m:own", "m:none", "m:", "none:shared", "own"])
async def test_a_strange_adapter_is_a_strange_model(adapted: World, name: str) -> None:
    await adapted.add_replica("a")
    async with adapted.post({**CHAT, "model": name}) as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["code"] == "model_not_found"
    told = {"authorization": f"Bearer {KEY}"}
    async with adapted.session.get(f"{adapted.url}/v1/models/{name}", headers=told) as page:
        assert page.status == 404


@pytest.mark.parametrize(
    ("key", "names"),
    [(KEY, ["m", "m:shared", "house"]), (OTHER_KEY, ["m", "m:shared", "house", "m:own"])],
)
async def test_models_are_listed_for_those_who_may_use_them(
    adapted: World, key: str, names: list[str]
) -> None:
    told = {"authorization": f"Bearer {key}"}
    async with adapted.session.get(f"{adapted.url}/v1/models", headers=told) as page:
        listed = (await page.json())["data"]
    assert [card["id"] for card in listed] == names
    assert listed[2]["root"] == "m:shared"
    assert listed[2]["parent"] == "m"
    async with adapted.session.get(f"{adapted.url}/v1/models/{names[-1]}", headers=told) as page:
        assert page.status == 200


class _Full(ScriptedGenerator):
    """All its adapter slots are in use."""

    async def submit(self, request: wire.Submit, put: Put) -> Abort:
        if request.adapter is not None and not request.adapter.wait:
            raise AdapterBusyError("All adapter slots of the replica are in use.")
        return await super().submit(request, put)


@pytest.mark.parametrize("adapted", ["base"], indirect=True)
async def test_the_model_may_answer_in_a_busy_adapters_place(adapted: World) -> None:
    replica = await adapted.add_replica("a", _Full())
    asking = asyncio.ensure_future(adapted.post({**CHAT, "model": "house"}).__aenter__())
    submit = await _started(replica.generator, "r1")
    assert submit.adapter is None
    replica.generator.end("r1", "hello", 3)
    answer = await asking
    assert answer.headers["x-weir-spill"] == "adapter"
    assert answer.headers["x-weir-model-answered"] == "m"
    assert (await answer.json())["model"] == "m"
    assert adapted.gateway.metrics.cost.labels("t", "m")._value.get() == 0.0
    assert adapted.outstanding() == 0


@pytest.mark.parametrize("adapted", ["refuse"], indirect=True)
async def test_a_busy_adapter_may_be_refused(adapted: World) -> None:
    await adapted.add_replica("a", _Full())
    async with adapted.post({**CHAT, "model": "house"}) as answer:
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert (await answer.json())["error"]["code"] == "adapter_busy"
    assert adapted.outstanding() == 0


async def test_what_replicas_tell_of_adapters_reaches_the_router(adapted: World) -> None:
    generator = ScriptedGenerator()
    generator.loaded = wire.Adapters(["shared"], [], 2)
    replica = await adapted.add_replica("a", generator, silent=True)
    replica.streams.tell_load(0.0)
    async with asyncio.timeout(5):
        while adapted.model.router.adapters.loaded("a") != ("shared",):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class _Engine:
    def __init__(self) -> None:
        self.loaded: set[int] = set()
        self.most = 0
        self.fails = False
        self.loads = 0

    async def add_lora(self, lora_request: Any) -> bool:
        await asyncio.sleep(0)
        if self.fails:
            raise ValueError("no such rank")
        self.loads += 1
        self.loaded.add(lora_request.lora_int_id)
        self.most = max(self.most, len(self.loaded))
        return True

    async def remove_lora(self, lora_id: int) -> bool:
        await asyncio.sleep(0)
        self.loaded.remove(lora_id)
        return True


def _slots(engine: _Engine, count: int) -> AdapterSlots:
    return AdapterSlots(engine, count, Path)


def _adapter(name: str, wait: bool = True) -> wire.Adapter:
    return wire.Adapter(name, f"/a/{name}", wait)


async def test_never_more_adapters_than_slots() -> None:
    engine = _Engine()
    slots = _slots(engine, 2)

    async def use(number: int) -> None:
        key = f"a{number % 7}"
        lora = await slots.hold(_adapter(key))
        assert lora.lora_name == key
        assert lora.lora_int_id in engine.loaded
        await asyncio.sleep(0.001 * (number % 3))
        assert lora.lora_int_id in engine.loaded
        slots.release(key)

    async with asyncio.timeout(20):
        await asyncio.gather(*map(use, range(100)))
    assert engine.most == 2
    assert slots.told().busy == []
    assert slots.told().loads == engine.loads


async def test_requests_of_one_adapter_share_its_slot_and_its_number() -> None:
    engine = _Engine()
    slots = _slots(engine, 1)
    one, other = await asyncio.gather(slots.hold(_adapter("a")), slots.hold(_adapter("a")))
    assert one.lora_int_id == other.lora_int_id
    assert engine.loads == 1
    with pytest.raises(AdapterBusyError):
        await slots.hold(_adapter("b", wait=False))
    slots.release("a")
    waiting = asyncio.create_task(slots.hold(_adapter("b")))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    slots.release("a")
    assert (await waiting).lora_name == "b"
    assert slots.told() == wire.Adapters(["b"], ["b"], 1, slots.told().load_s, 2)


async def test_who_stops_waiting_leaves_nothing_behind() -> None:
    slots = _slots(_Engine(), 1)
    await slots.hold(_adapter("a"))
    waiting = asyncio.create_task(slots.hold(_adapter("b")))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    slots.release("a")
    await slots.hold(_adapter("c"))
    assert slots.told().busy == ["c"]


async def test_an_adapter_that_cannot_be_loaded_takes_no_slot() -> None:
    engine = _Engine()
    slots = _slots(engine, 1)
    engine.fails = True
    with pytest.raises(NotFoundError):
        await slots.hold(_adapter("a"))
    engine.fails = False
    await slots.hold(_adapter("b"))
    assert slots.told().loaded == ["b"]


def test_the_engine_has_one_slot_more_than_is_used() -> None:
    files = [AdapterFiles(Path("/a"), 9, "d")]
    assert engine_arguments([], 8) == {}
    assert engine_arguments(files, 8) == {
        "enable_lora": True,
        "max_loras": 9,
        "max_lora_rank": 16,
    }


@pytest.mark.parametrize("cold", ["base", "refuse"])
async def test_busy_slots_open_no_circuit(encoder: PromptEncoder, cold: str) -> None:
    plain = _settings(cold)
    model = plain.models[0].model_copy(update={"fallback": FallbackSettings(student="s")})
    student = ModelSettings(name="s", source="x")
    settings = plain.model_copy(update={"models": (model, student)})
    async with http_world(settings, {"m": encoder, "s": encoder}) as world:
        await world.add_replica("a", _Full())
        await world.add_student_replica("b")
        for number in range(5):
            asked = {**CHAT, "model": "house", "id": f"c{number}"}
            asking = asyncio.ensure_future(world.post(asked).__aenter__())
            if cold == "base":
                await _started(world.replicas[0].generator, f"c{number}")
                world.replicas[0].generator.end(f"c{number}", "hello")
            answer = await asking
            assert answer.status == (200 if cold == "base" else 503)
        assert not world.gateway.parts.fallbacks["m"].policy.is_broken
