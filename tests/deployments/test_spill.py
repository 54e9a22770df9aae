"""Requests that go to the student, over real sockets: why, what the client sees, what is freed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from weir.errors import OverloadedError
from weir.settings.fallback import (
    CapacitySpillSettings,
    CascadeSettings,
    CostSettings,
    FailureSettings,
    FallbackSettings,
    LongTailSettings,
    TenantFallbackSettings,
)
from weir.settings.tenants import BudgetSettings

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello world"}]}
RARE = {**HELLO, "metadata": {"intent": "refund"}}


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.005)


def fallback(**sections: Any) -> FallbackSettings:
    return FallbackSettings(student="s", **sections)


def spills(world: Any, reason: str) -> float:
    return float(world.gateway.metrics.spills.labels("t", "m", reason)._value.get())


def idle(world: Any) -> bool:
    """Nothing is reserved, waiting or running anywhere."""
    models = (world.model, world.student)
    loads = [v.load.requests for m in models for v in m.router.snapshot().replicas]
    streams = [replica.streams.in_flight for replica in world.replicas]
    return (
        not any(loads)
        and not any(streams)
        and not any(m.dispatcher.queue.in_flight for m in models)
    )


async def answered(world: Any, pending: Any, replica: Any, text: str = "yes") -> Any:
    """The response, once ``replica`` has been made to answer the request r1."""
    await _until(lambda: "r1" in replica.generator.started)
    replica.generator.end("r1", text, count=2)
    response = await pending
    assert response.status == 200, await response.text()
    assert text in await response.text()
    await _until(lambda: idle(world))
    return response


async def test_the_teacher_answers_when_nothing_speaks_against_it(
    spilling: Any, make_pair: Any
) -> None:
    world = await spilling(make_pair())
    teacher, student = await world.add_replica("a"), await world.add_student_replica("z")
    response = await answered(world, asyncio.ensure_future(world.post(dict(HELLO))), teacher)
    assert response.headers["x-weir-model-answered"] == "m"
    assert "x-weir-spill" not in response.headers
    assert student.generator.requests == {}
    assert teacher.generator.requests["r1"].logprobs is None


async def test_a_rare_intent_goes_to_the_student(spilling: Any, make_pair: Any) -> None:
    rare = LongTailSettings(rare_intents=("refund",))
    world = await spilling(make_pair(fallback(long_tail=rare)))
    await world.add_replica("a")
    student = await world.add_student_replica("z")
    response = await answered(world, asyncio.ensure_future(world.post(dict(RARE))), student)
    assert response.headers["x-weir-model-answered"] == "s"
    assert response.headers["x-weir-spill"] == "long-tail"
    assert response.headers["x-weir-replica"] == "z"
    assert (await response.json())["model"] == "s"
    assert spills(world, "long-tail") == 1
    assert world.gateway.metrics.output_tokens.labels("t", "s")._value.get() == 2
    assert world.gateway.metrics.output_tokens.labels("t", "m")._value.get() == 0


async def test_a_tenant_may_forbid_it(spilling: Any, make_pair: Any) -> None:
    rare = LongTailSettings(rare_intents=("refund",))
    tenant = TenantFallbackSettings(forbid=("long-tail",))
    world = await spilling(make_pair(fallback(long_tail=rare), tenant))
    teacher = await world.add_replica("a")
    await world.add_student_replica("z")
    await answered(world, asyncio.ensure_future(world.post(dict(RARE))), teacher)


async def test_a_long_tail_request_without_a_student_goes_to_the_teacher(
    spilling: Any, make_pair: Any
) -> None:
    rare = LongTailSettings(rare_intents=("refund",))
    world = await spilling(make_pair(fallback(long_tail=rare)))
    teacher = await world.add_replica("a")
    response = await answered(world, asyncio.ensure_future(world.post(dict(RARE))), teacher)
    assert response.headers["x-weir-model-answered"] == "m"
    assert "x-weir-spill" not in response.headers
    failed = world.gateway.metrics.spill_failures.labels("m", "long-tail")._value.get()
    assert failed == 1


async def test_no_teacher_replica_at_all(spilling: Any, make_pair: Any) -> None:
    """Start-up, scale from zero, or all of them lost; /ready says that requests are answered."""
    world = await spilling(make_pair())
    student = await world.add_student_replica("z")
    response = await answered(world, asyncio.ensure_future(world.post(dict(HELLO))), student)
    assert response.headers["x-weir-spill"] == "failure"
    async with world.session.get(world.url + "/ready") as ready:
        assert ready.status == 200


async def test_neither_of_them_is_the_teachers_error(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair())
    response = await world.post(dict(HELLO))
    assert response.status == 503
    error = (await response.json())["error"]
    assert error["code"] == "no_replica"
    assert "'m'" in error["message"]
    assert "x-weir-spill" not in response.headers


@pytest.mark.parametrize("stream", [True, False])
async def test_a_teacher_that_dies_before_its_first_token(
    spilling: Any, make_pair: Any, stream: bool
) -> None:
    world = await spilling(make_pair())
    teacher, student = await world.add_replica("a"), await world.add_student_replica("z")
    pending = asyncio.ensure_future(world.post({**HELLO, "stream": stream}))
    await _until(lambda: "r1" in teacher.generator.started)
    await teacher.listener.stop()
    response = await answered(world, pending, student)
    assert response.headers["x-weir-spill"] == "failure"
    assert response.headers["x-weir-replica"] == "z"


async def test_a_plain_answer_is_begun_again_by_the_student(spilling: Any, make_pair: Any) -> None:
    """Half an answer was there when the teacher died, but none of it had been sent."""
    world = await spilling(make_pair())
    teacher, student = await world.add_replica("a"), await world.add_student_replica("z")
    pending = asyncio.ensure_future(world.post(dict(HELLO)))
    await _until(lambda: "r1" in teacher.generator.started)
    teacher.generator.say("r1", "half")
    await _until(lambda: world.model.router.snapshot().replicas[0].load.prefill_tokens == 0)
    await teacher.listener.stop()
    response = await answered(world, pending, student, "whole")
    body = await response.json()
    assert body["choices"][0]["message"]["content"] == "whole"
    assert body["usage"]["completion_tokens"] == 2, "the lost half is not paid for"


async def test_a_stream_that_has_begun_fails_as_ever(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair())
    teacher, student = await world.add_replica("a"), await world.add_student_replica("z")
    pending = asyncio.ensure_future(world.post({**HELLO, "stream": True}))
    await _until(lambda: "r1" in teacher.generator.started)
    teacher.generator.say("r1", "Hel")
    response = await pending
    await response.content.readany()
    await teacher.listener.stop()
    assert "replica_failed" in (await response.read()).decode()
    assert student.generator.requests == {}
    await _until(lambda: idle(world))


async def test_the_circuit_opens_and_single_requests_find_the_way_back(
    spilling: Any, make_pair: Any
) -> None:
    breaker = FailureSettings(failures=2, open_s=0.05, max_open_s=0.05, probes=1)
    world = await spilling(make_pair(fallback(failure=breaker)))
    teacher, student = await world.add_replica("a"), await world.add_student_replica("z")
    teacher.generator.refuse = RuntimeError("broken")
    for _ in range(2):
        await answered(world, asyncio.ensure_future(world.post(dict(HELLO))), student)
    assert world.gateway.metrics.circuit.labels("m")._value is not None
    circuit = world.gateway.metrics.registry.get_sample_value
    assert circuit("weir_circuit_state", {"model": "m"}) in (1, 2)
    teacher.generator.refuse = None
    await asyncio.sleep(0.06)
    probe = asyncio.ensure_future(world.post(dict(HELLO)))
    await _until(lambda: "r1" in teacher.generator.started)
    second = asyncio.ensure_future(world.post({**HELLO, "id": "r2"}))
    await _until(lambda: "r2" in student.generator.started)
    student.generator.end("r2")
    assert (await second).headers["x-weir-spill"] == "failure"
    await answered(world, probe, teacher)
    assert circuit("weir_circuit_state", {"model": "m"}) == 0


async def test_an_engine_that_is_down_counts_as_failure(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair())
    teacher, student = await world.add_replica("a"), await world.add_student_replica("z")
    teacher.generator.refuse = OverloadedError("The engine is down.")
    response = await answered(world, asyncio.ensure_future(world.post(dict(HELLO))), student)
    assert response.headers["x-weir-spill"] == "failure"


def full(ttft_slo_ms: float) -> dict[str, Any]:
    """One place on a replica, two in the queue of the class that may spill."""
    interactive = {"urgency": 0, "ttft_slo_ms": ttft_slo_ms, "max_requests": 2}
    classes = {"interactive": interactive, "batch": {"urgency": 1}}
    return {"limits": {"places": {"running": 1}}, "classes": classes}


async def occupied(world: Any) -> tuple[Any, Any]:
    """The teacher's only place is taken by a request ``first``, which goes on."""
    teacher = await world.add_replica("a")
    first = asyncio.ensure_future(world.post({**HELLO, "id": "first"}))
    await _until(lambda: "first" in teacher.generator.started)
    return teacher, first


async def test_a_request_that_has_waited_long_enough_spills(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair(admission=full(400.0)))
    teacher, first = await occupied(world)
    student = await world.add_student_replica("z")
    pending = asyncio.ensure_future(world.post(dict(HELLO)))
    await _until(lambda: "r1" in student.generator.started)
    assert len(world.model.gate) == 0
    student.generator.end("r1", "yes")
    assert (await pending).headers["x-weir-spill"] == "overload"
    teacher.generator.end("first")
    assert (await first).headers["x-weir-model-answered"] == "m"
    await _until(lambda: idle(world))


async def test_batch_waits(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair(admission=full(400.0)))
    teacher, first = await occupied(world)
    student = await world.add_student_replica("z")
    headers = {"authorization": "Bearer weir_test-key", "x-weir-priority": "batch"}
    batch = asyncio.ensure_future(
        world.session.post(
            world.url + "/v1/chat/completions",
            json={"model": "m", **HELLO},
            headers={**headers, "x-request-id": "r1"},
        )
    )
    await _until(lambda: len(world.model.gate) == 1)
    await asyncio.sleep(0.3)
    assert student.generator.requests == {}
    teacher.generator.end("first")
    assert (await first).status == 200
    await answered(world, batch, teacher)


async def test_what_would_be_refused_spills(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair(admission=full(60000.0)))
    teacher, first = await occupied(world)
    student = await world.add_student_replica("z")
    waiting = [asyncio.ensure_future(world.post({**HELLO, "id": f"w{n}"})) for n in range(2)]
    await _until(lambda: len(world.model.gate) == 2)
    response = await answered(
        world_without_idle(world), asyncio.ensure_future(world.post(dict(HELLO))), student
    )
    assert response.headers["x-weir-spill"] == "overload"
    for name, pending in (("first", first), ("w0", waiting[0]), ("w1", waiting[1])):
        await _until(lambda name=name: name in teacher.generator.started)
        teacher.generator.end(name)
        assert (await pending).status == 200
    await _until(lambda: idle(world))


def world_without_idle(world: Any) -> Any:
    class Busy:
        """Stands for the world where others are still at work."""

        model, student, replicas = world.student, world.student, ()

    return Busy


async def test_refused_by_both_is_the_teachers_refusal(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair(admission=full(60000.0)))
    teacher, first = await occupied(world)
    waiting = [asyncio.ensure_future(world.post({**HELLO, "id": f"w{n}"})) for n in range(2)]
    await _until(lambda: len(world.model.gate) == 2)
    response = await world.post(dict(HELLO))
    assert response.status == 503
    assert "queue is full" in (await response.json())["error"]["message"]
    for name, pending in (("first", first), ("w0", waiting[0]), ("w1", waiting[1])):
        await _until(lambda name=name: name in teacher.generator.started)
        teacher.generator.end(name)
        assert (await pending).status == 200


async def test_who_cannot_spill_after_all_waits_on(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair(admission=full(100.0)))
    teacher, first = await occupied(world)
    pending = asyncio.ensure_future(world.post(dict(HELLO)))
    await asyncio.sleep(0.3)
    await _until(lambda: len(world.model.gate) == 1)
    teacher.generator.end("first")
    assert (await first).status == 200
    await answered(world, pending, teacher)
    assert world.gateway.metrics.spill_failures.labels("m", "overload")._value.get() == 1


async def test_those_who_wait_spill_at_once_when_the_pool_is_lost(
    spilling: Any, make_pair: Any
) -> None:
    world = await spilling(make_pair(admission=full(60000.0)))
    teacher, first = await occupied(world)
    student = await world.add_student_replica("z")
    pending = asyncio.ensure_future(world.post(dict(HELLO)))
    await _until(lambda: len(world.model.gate) == 1)
    world.model.router.set_replicas(())
    await _until(lambda: "r1" in student.generator.started)
    student.generator.end("r1", "yes")
    assert (await pending).headers["x-weir-spill"] == "failure"
    teacher.generator.end("first")
    await first


async def leave(world: Any, ready: Callable[[], Any]) -> None:
    """A client posts r1 and goes away once ``ready``."""
    async with aiohttp.ClientSession() as leaving:
        world.session, kept = leaving, world.session
        pending = asyncio.ensure_future(world.post(dict(HELLO)))
        await _until(ready)
        pending.cancel()
        world.session = kept


async def test_a_client_that_leaves_while_it_waits(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair(admission=full(60000.0)))
    teacher, first = await occupied(world)
    student = await world.add_student_replica("z")
    await leave(world, lambda: len(world.model.gate) == 1)
    await _until(lambda: len(world.model.gate) == 0)
    assert student.generator.requests == {}
    teacher.generator.end("first")
    await first
    await _until(lambda: idle(world))


async def test_a_client_that_leaves_while_the_student_answers(
    spilling: Any, make_pair: Any
) -> None:
    world = await spilling(make_pair())
    student = await world.add_student_replica("z")
    await leave(world, lambda: "r1" in student.generator.started)
    await _until(lambda: student.generator.aborted == ["r1"] and idle(world))


async def test_a_spent_budget_goes_to_the_student_and_without_one_is_refused(
    spilling: Any, make_pair: Any
) -> None:
    """6 prompt tokens at 1 and 2 output tokens at 10 USD per million: one answer is 26 µUSD, and
    106 µUSD may it be with the 10 that are asked for."""
    steps = [{"percent": 50, "actions": ["spill"]}, {"percent": 100, "actions": ["refuse"]}]
    budget = BudgetSettings.model_validate({"usd_per_month": 220e-6, "steps": steps})
    world = await spilling(make_pair(budget=budget))
    teacher, hello = await world.add_replica("a"), {**HELLO, "max_tokens": 10}
    await answered(world, asyncio.ensure_future(world.post(dict(hello))), teacher)
    refused = await world.post(dict(hello))
    assert refused.status == 429
    assert "what you may spend on 'm'" in (await refused.json())["error"]["message"]
    student = await world.add_student_replica("z")
    response = await answered(world, asyncio.ensure_future(world.post(dict(hello))), student)
    assert response.headers["x-weir-spill"] == "cost"
    assert world.gateway.models["m"].router.snapshot().replicas[0].load.requests == 0
    book = world.gateway.parts.account.store.book
    assert book.spent_nano_usd("t") == 2 * 26_000
    assert book.open_holds() == 0


async def test_a_request_above_the_cap_goes_to_the_student(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair(fallback(cost=CostSettings(price_cap_usd=1e-4))))
    teacher, student = await world.add_replica("a"), await world.add_student_replica("z")
    cheap = asyncio.ensure_future(world.post({**HELLO, "max_tokens": 9}))
    await answered(world, cheap, teacher)
    dear = asyncio.ensure_future(world.post({**HELLO, "max_tokens": 10}))
    await answered(world, dear, student)


CASCADE = CascadeSettings(enabled=True, first_tokens=2, threshold=-0.5)


def events(raw: bytes) -> list[Any]:
    lines = [line[6:] for line in raw.decode().split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def test_a_sure_student_keeps_its_answer(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair(fallback(cascade=CASCADE)))
    teacher, student = await world.add_replica("a"), await world.add_student_replica("z")
    pending = asyncio.ensure_future(world.post({**HELLO, "stream": True}))
    await _until(lambda: "r1" in student.generator.started)
    assert student.generator.requests["r1"].logprobs == 0
    student.generator.say("r1", "Hel", -0.1)
    await asyncio.sleep(0.05)
    assert not pending.done(), "nothing is sent before the verdict"
    student.generator.say("r1", "lo", -0.1)
    response = await pending
    student.generator.say("r1", " you", -9.0)
    student.generator.end_scored("r1", "!", -0.1, count=4)
    sent = events(await response.read())
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in sent) == "Hello you!"
    assert response.headers["x-weir-spill"] == "cascade-kept"
    assert response.headers["x-weir-model-answered"] == "s"
    assert teacher.generator.requests == {}
    await _until(lambda: idle(world))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_doubtful_student_gives_way_and_both_are_paid(
    spilling: Any, make_pair: Any, stream: bool
) -> None:
    world = await spilling(make_pair(fallback(cascade=CASCADE)))
    teacher, student = await world.add_replica("a"), await world.add_student_replica("z")
    body = {**HELLO, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    pending = asyncio.ensure_future(world.post(body))
    await _until(lambda: "r1" in student.generator.started)
    student.generator.say("r1", "Err", -2.0)
    await _until(lambda: "r1" in teacher.generator.started)
    assert student.generator.aborted == ["r1"]
    teacher.generator.end("r1", "Right", count=2)
    response = await pending
    raw = await response.read()
    assert b"Err" not in raw
    assert b"Right" in raw
    usage = events(raw)[-1]["usage"] if stream else json.loads(raw)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (12, 3)
    assert response.headers["x-weir-spill"] == "cascade-escalated"
    assert response.headers["x-weir-model-answered"] == "m"
    assert "also billed: s prompt_tokens=6 output_tokens=1" in response.headers["x-weir-cascade"]
    await _until(lambda: idle(world))
    for model, tokens in (("m", 2), ("s", 1)):
        assert world.gateway.metrics.output_tokens.labels("t", model)._value.get() == tokens


async def test_a_student_that_dies_in_a_cascade(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair(fallback(cascade=CASCADE)))
    teacher, student = await world.add_replica("a"), await world.add_student_replica("z")
    pending = asyncio.ensure_future(world.post(dict(HELLO)))
    await _until(lambda: "r1" in student.generator.started)
    student.generator.say("r1", "Hel", -0.1)
    await asyncio.sleep(0.02)
    await student.listener.stop()
    response = await answered(world, pending, teacher)
    assert "x-weir-spill" not in response.headers
    assert (await response.json())["usage"]["completion_tokens"] == 2


async def test_a_client_that_leaves_while_an_answer_is_held_back(
    spilling: Any, make_pair: Any
) -> None:
    world = await spilling(make_pair(fallback(cascade=CASCADE)))
    teacher, student = await world.add_replica("a"), await world.add_student_replica("z")

    def held() -> bool:
        if "r1" not in student.generator.started:
            return False
        student.generator.say("r1", "Hel", -0.1)
        return True

    await leave(world, held)
    await _until(lambda: student.generator.aborted == ["r1"] and idle(world))
    assert teacher.generator.requests == {}


async def test_log_probabilities_that_the_client_asked_for_are_in_a_kept_answer(
    spilling: Any, make_pair: Any
) -> None:
    world = await spilling(make_pair(fallback(cascade=CASCADE)))
    await world.add_replica("a")
    student = await world.add_student_replica("z")
    pending = asyncio.ensure_future(world.post({**HELLO, "logprobs": True}))
    await _until(lambda: "r1" in student.generator.started)
    student.generator.say("r1", "Hel", -0.1)
    student.generator.end_scored("r1", "lo", -0.2, count=2)
    choice = (await (await pending).json())["choices"][0]
    assert [token["logprob"] for token in choice["logprobs"]["content"]] == [-0.1, -0.2]


async def test_several_choices_are_not_cascaded(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair(fallback(cascade=CASCADE)))
    teacher = await world.add_replica("a")
    student = await world.add_student_replica("z")
    pending = asyncio.ensure_future(world.post({**HELLO, "n": 2}))
    for name in ("r1-0", "r1-1"):
        await _until(lambda name=name: name in teacher.generator.started)
        teacher.generator.end(name, name, count=2)
    answer = await (await pending).json()
    assert [c["message"]["content"] for c in answer["choices"]] == ["r1-0", "r1-1"]
    assert answer["usage"]["prompt_tokens"] == 6, "both choices share their prompt"
    assert answer["usage"]["completion_tokens"] == 4
    assert student.generator.requests == {}
    await _until(lambda: idle(world))


# What the autoscaler leaves to the student.


def priced(**more: Any) -> FallbackSettings:
    """Up to half of the requests, for a price."""
    return fallback(capacity=CapacitySpillSettings(max_share=0.5, usd_per_request=0.001, **more))


async def served(world: Any, count: int, **body: Any) -> list[str | None]:
    """Why each of so many requests in turn was spilled."""
    told = []
    for _ in range(count):
        pending = asyncio.ensure_future(world.post({**HELLO, **body}))
        await _until(lambda: any(r.generator.requests for r in world.replicas))
        holder = next(r for r in world.replicas if r.generator.requests)
        (name,) = holder.generator.requests
        await _until(lambda holder=holder, name=name: name in holder.generator.started)
        holder.generator.end(name, "yes", count=2)
        response = await pending
        assert response.status == 200, await response.text()
        await _until(lambda: idle(world))
        holder.generator.requests.clear()
        told.append(response.headers.get("x-weir-spill"))
    return told


async def test_the_decided_share_goes_to_the_student_to_one_request(
    spilling: Any, make_pair: Any
) -> None:
    world = await spilling(make_pair(priced()))
    await world.add_replica("a")
    await world.add_student_replica("z")
    surplus = world.gateway.parts.fallbacks["m"].surplus
    assert await served(world, 2) == [None, None]  # nothing has been decided
    surplus.decide({"standard": 0.25})
    assert await served(world, 8) == 2 * [None, None, None, "capacity"]
    assert (surplus.may, surplus.taken) == ({"standard": 10}, {"standard": 2})
    assert spills(world, "capacity") == 2
    # What the model itself was asked is its demand; what was spilled is told apart.
    assert world.model.dispatcher.arrivals.by_class["standard"].requests == 8
    surplus.decide({})
    assert await served(world, 2) == [None, None]


async def test_whatever_is_decided_the_settings_bound_it(spilling: Any, make_pair: Any) -> None:
    world = await spilling(make_pair(priced()))
    await world.add_replica("a")
    await world.add_student_replica("z")
    world.gateway.parts.fallbacks["m"].surplus.decide({"standard": 1.0})
    assert (await served(world, 6)).count("capacity") == 3


@pytest.mark.parametrize("who", ["tenant", "class"])
async def test_who_may_not_be_spilled_for_capacity_is_not(
    spilling: Any, make_pair: Any, who: str
) -> None:
    settings = priced(classes=("interactive",)) if who == "class" else priced()
    wishes = TenantFallbackSettings(forbid=("capacity",) if who == "tenant" else ())
    world = await spilling(make_pair(settings, wishes))
    await world.add_replica("a")
    await world.add_student_replica("z")
    surplus = world.gateway.parts.fallbacks["m"].surplus
    surplus.decide({"standard": 0.5})
    assert await served(world, 3) == [None, None, None]
    assert surplus.may == {}


async def test_what_the_student_cannot_take_is_the_models_own(
    spilling: Any, make_pair: Any
) -> None:
    world = await spilling(make_pair(priced()))
    await world.add_replica("a")  # and no student
    surplus = world.gateway.parts.fallbacks["m"].surplus
    surplus.decide({"standard": 0.5})
    assert await served(world, 4) == [None, None, None, None]
    assert surplus.taken == {"standard": 0}
    assert world.model.dispatcher.arrivals.by_class["standard"].requests == 4
    failed = world.gateway.metrics.spill_failures.labels("m", "capacity")._value.get()
    assert failed == 2
