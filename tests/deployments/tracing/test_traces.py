"""A request's trace: over real sockets, as the gateway's page and a collector see it."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes
from opentelemetry.semconv.schemas import Schemas

from deployments.gateway.enrichment import NotEnriched
from deployments.gateway.tracing import names
from deployments.testing.world import TOKEN, World
from features.enrichment import Enrichment
from weir.errors import BadRequestError, InternalError
from weir.logs import JsonFormatter

Make = Callable[..., Any]
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello world"}]}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.005)


async def _answer(world: World, replica: Any, id: str = "r1", **more: Any) -> Any:
    """A whole answer of two outputs by the replica."""
    headers = more.pop("headers", {})
    pending = asyncio.ensure_future(world.post({**HELLO, "id": id, **more}, **headers))
    await _until(lambda: id in replica.generator.started)
    replica.generator.say(id, "a")
    await asyncio.sleep(0.02)
    replica.generator.end(id, " b", count=2)
    return await pending


def _of(world: World, id: str) -> Any:
    tracer = world.gateway.parts.tracer
    assert tracer is not None
    return tracer.recent.find(id)


def _spans(world: World, id: str = "r1") -> dict[str, Any]:
    (trace,) = _of(world, id)
    return {span.name: span for span in trace.spans}


async def test_a_request_step_by_step(traced: Make) -> None:
    world = await traced()
    for name in ("a", "b"):
        await world.add_replica(name)
    pending = asyncio.ensure_future(world.post({**HELLO, "max_tokens": 9, "temperature": 0.5}))
    await _until(lambda: any(r.generator.started for r in world.replicas))
    chosen = next(r for r in world.replicas if r.generator.started)
    busy = chosen.generator
    busy.say("r1", "a")
    await asyncio.sleep(0.02)
    busy.end("r1", " b", count=2)
    assert (await pending).status == 200
    await _until(lambda: _of(world, "r1"))
    spans = _spans(world)
    root = spans["POST /v1/chat/completions"]
    attempt, leg = spans["chat m"], spans["leg"]
    assert {name: span.parent_id for name, span in spans.items()} == {
        root.name: "",
        "receive": root.span_id,
        "chat m": root.span_id,
        "tokenize": attempt.span_id,
        "queue": attempt.span_id,
        "leg": attempt.span_id,
        "decide": leg.span_id,
        "prefill": leg.span_id,
        "decode": leg.span_id,
    }
    ordered = ["receive", "tokenize", "queue", "prefill", "decode"]
    for before, after in itertools.pairwise(ordered):
        assert spans[before].end_s <= spans[after].start_s + 1e-9
    assert all(root.start_s <= s.start_s <= s.end_s <= root.end_s for s in spans.values())
    assert attempt.attributes[names.INPUT_TOKENS] == 6
    assert attempt.attributes[names.OUTPUT_TOKENS] == 2
    assert attempt.attributes[names.MAX_TOKENS] == 9
    assert attempt.attributes[names.TEMPERATURE] == 0.5
    assert attempt.attributes[names.FINISH_REASONS] == ["stop"]
    assert leg.attributes["weir.replica"] == chosen.name
    decision = spans["decide"].attributes
    assert decision["weir.decision.replica"] == chosen.name
    assert decision["weir.decision.candidates"] == 2
    best = [told.split()[:2] for told in decision["weir.decision.best"]]
    assert sorted(replica for replica, _ in best) == ["a", "b"]
    assert 0 < float(best[0][1]) <= float(best[1][1])
    assert len({span.span_id for span in spans.values()}) == len(spans)


class _Knows:
    """An enricher whose look-ups end at once with this outcome and reason."""

    def __init__(self, **told: Any) -> None:
        self._told = told

    def begin(self, _tenant: Any, body: Any, _header: Any) -> NotEnriched:
        return NotEnriched(Enrichment(body, **self._told))


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({"outcome": "hit", "enriched": True}, "hit"),
        ({"outcome": "missing", "reason": "absent"}, "missing"),
        ({"outcome": "off", "reason": "no-entity"}, "off"),
        ({}, None),
    ],
)
async def test_a_look_up_has_a_span_whatever_it_found(
    traced: Make, told: dict[str, Any], shown: str | None
) -> None:
    world = await traced(enricher=_Knows(**told))
    replica = await world.add_replica("a")
    assert (await _answer(world, replica)).status == 200
    await _until(lambda: _of(world, "r1"))
    span = _spans(world).get("features")
    assert (span and span.attributes["weir.features.outcome"]) == shown


async def test_the_context_goes_in_and_out(traced: Make) -> None:
    """The client's trace goes on: in the answer's header, and to the replica for the engine."""
    world = await traced(sample_ratio=0.0)
    replica = await world.add_replica("a")
    response = await _answer(world, replica, headers={"traceparent": PARENT, "tracestate": "x=1"})
    trace_id = PARENT[3:35]
    await _until(lambda: _of(world, trace_id))
    (trace,) = _of(world, trace_id)
    spans = _spans(world)
    root, leg = trace.spans[0], spans["leg"]
    assert root.parent_id == PARENT[36:52]
    assert trace.state == "x=1"
    assert response.headers["traceresponse"] == f"00-{trace_id}-{root.span_id}-01"
    assert replica.generator.requests["r1"].trace == f"00-{trace_id}-{leg.span_id}-01"


async def test_one_that_is_not_sampled_costs_the_engine_nothing(traced: Make) -> None:
    world = await traced(sample_ratio=0.0)
    replica = await world.add_replica("a")
    response = await _answer(world, replica)
    assert replica.generator.requests["r1"].trace is None
    assert response.headers["traceresponse"].endswith("-00")
    await _answer(world, replica, "r2", headers={"traceparent": PARENT})
    await _until(lambda: _of(world, "r2"))
    assert not _of(world, "r1")


async def test_a_failed_one_is_kept_and_a_refused_one_is_not(traced: Make) -> None:
    world = await traced(sample_ratio=0.0)
    replica = await world.add_replica("a")
    assert (await world.post({**HELLO, "id": "bad", "temperature": "hot"})).status == 400
    assert (await world.post({**HELLO, "id": "who"}, authorization="Bearer no")).status == 401
    replica.generator.refuse = BadRequestError("no")
    assert (await world.post({**HELLO, "id": "refused"})).status == 400
    replica.generator.refuse = InternalError("broken")
    assert (await world.post({**HELLO, "id": "broken"})).status == 502
    await _until(lambda: _of(world, "broken"))
    (trace,) = _of(world, "broken")
    assert trace.kept == "failed"
    assert trace.spans[0].error == "replica_failed"
    assert [span.error for span in trace.spans if span.name == "leg"] == ["replica_failed"]
    assert not [i for i in ("bad", "who", "refused") if _of(world, i)]


async def test_a_slow_one_is_kept(traced: Make) -> None:
    world = await traced(sample_ratio=0.0, slow_s=0.01)
    replica = await world.add_replica("a")
    await _answer(world, replica)
    await _until(lambda: _of(world, "r1"))
    assert _of(world, "r1")[0].kept == "slow"


async def test_one_that_moves_has_two_legs(traced: Make) -> None:
    world = await traced(sample_ratio=0.0)
    for name in ("a", "b"):
        await world.add_replica(name)
    pending = asyncio.ensure_future(world.post({**HELLO, "stream": True}))
    await _until(lambda: any(r.generator.started for r in world.replicas))
    first = next(r for r in world.replicas if r.generator.started)
    other = next(r for r in world.replicas if r is not first)
    first.generator.say("r1", "a")
    response = await pending
    await first.listener.stop()
    await _until(lambda: other.generator.started)
    other.generator.end("r1", " b", count=1)
    await response.read()
    await _until(lambda: _of(world, "r1"))
    (trace,) = _of(world, "r1")
    legs = [span for span in trace.spans if span.name == "leg"]
    assert trace.kept == "moved"
    assert [leg.attributes["weir.replica"] for leg in legs] == [first.name, other.name]
    assert [leg.error for leg in legs] == ["moved", ""]
    assert legs[0].attributes["weir.loss"] == "gone"


async def test_logs_name_the_trace(traced: Make) -> None:
    world = await traced()
    replica = await world.add_replica("a")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("weir.gateway")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        replica.generator.refuse = InternalError("broken")
        await world.add_replica("b", replica.generator)
        await world.post({**HELLO}, traceparent=PARENT)
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert {line["trace_id"] for line in lines if line.get("request_id") == "r1"} == {PARENT[3:35]}


async def test_metrics_count_what_is_kept(traced: Make) -> None:
    world = await traced()
    replica = await world.add_replica("a")
    await _answer(world, replica)
    value = world.gateway.metrics.registry.get_sample_value
    await _until(lambda: value("weir_traces_kept_total", {"why": "sampled"}) == 1)


async def test_the_page_is_for_the_platform_alone(traced: Make) -> None:
    world = await traced(recent=2)
    replica = await world.add_replica("a")
    for id in ("one", "two", "three"):
        await _answer(world, replica, id)
    await _until(lambda: _of(world, "three"))
    page = world.url + "/weir/traces"
    own = {"authorization": f"Bearer {TOKEN}"}
    async with world.session.get(page, headers=own) as answer:
        listed = await answer.json()
    assert [trace["request_id"] for trace in listed["traces"]] == ["three", "two"]
    async with world.session.get(f"{page}?id=two", headers=own) as answer:
        (trace,) = (await answer.json())["traces"]
    assert trace["spans"][0]["name"] == "POST /v1/chat/completions"
    for headers in ({}, {"authorization": "Bearer weir_test-key"}):
        async with world.session.get(page, headers=headers) as answer:
            assert answer.status == 401


@pytest.mark.parametrize("wants", [True, False])
async def test_prompts_only_of_tenants_that_want_them(traced: Make, wants: bool) -> None:
    world = await traced(tenant={"trace_content": wants}, content_max_chars=8)
    replica = await world.add_replica("a")
    await _answer(world, replica)
    await _until(lambda: _of(world, "r1"))
    told = _spans(world)["chat m"].attributes
    assert (names.INPUT_MESSAGES in told) is wants
    assert (names.OUTPUT_MESSAGES in told) is wants
    if wants:
        asked = json.loads(told[names.INPUT_MESSAGES])
        said = json.loads(told[names.OUTPUT_MESSAGES])
        assert asked == [{"role": "user", "parts": [{"type": "text", "content": "hello wo"}]}]
        assert said[0]["parts"] == [{"type": "text", "content": "a b"}]
        assert said[0]["finish_reason"] == "stop"
    else:
        assert "hello" not in repr(_of(world, "r1"))


async def test_without_settings_nothing_is_traced(world: World) -> None:
    assert world.gateway.parts.tracer is None
    replica = await world.add_replica("a")
    pending = asyncio.ensure_future(world.post(HELLO, traceparent=PARENT))
    await _until(lambda: "r1" in replica.generator.started)  # type: ignore[attr-defined]
    replica.generator.end("r1", "b", count=1)
    assert "traceresponse" not in (await pending).headers
    assert replica.generator.requests["r1"].trace is None
    async with world.session.get(
        world.url + "/weir/traces", headers={"authorization": f"Bearer {TOKEN}"}
    ) as answer:
        assert answer.status == 404


def test_names_are_opentelemetrys() -> None:
    known = {
        value
        for module in (gen_ai_attributes, http_attributes, error_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    ours = {
        value
        for name, value in vars(names).items()
        if name.isupper() and isinstance(value, str) and name != "SCHEMA_URL"
    }
    assert ours <= known
    assert list(Schemas)[-1].value == names.SCHEMA_URL
    operations = {each.value for each in gen_ai_attributes.GenAiOperationNameValues}
    assert set(names.OPERATIONS.values()) <= operations
