"""When a request is booked, and what of it: over real sockets, with replicas that say what they are
told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deployments import wire
from deployments.gateway.dialects import DIALECTS
from deployments.gateway.ending import Cause, Ending
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.request import MemoryDoor
from deployments.gateway.sink import HttpSink, MemorySink
from deployments.testing.cluster import until
from deployments.testing.recording import RecordingLedger
from deployments.testing.world import KEY, World, http_world
from weir.errors import OverloadedError
from weir.ledger import Loss, Part, UsageRecord
from weir.settings import ModelSettings, PriceSettings, Settings, TenantSettings
from weir.settings.fallback import FallbackSettings, LongTailSettings
from weir.settings.tree import GatewaySettings
from weir.tenancy import hash_key

DEAR = PriceSettings(input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=10.0)
CHEAP = PriceSettings(input_usd_per_million_tokens=0.1, output_usd_per_million_tokens=1.0)
HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello world"}]}


@pytest.fixture
def ledger() -> RecordingLedger:
    return RecordingLedger()


@pytest.fixture
async def world(encoder: PromptEncoder, ledger: RecordingLedger) -> AsyncIterator[World]:
    rare = FallbackSettings(student="s", long_tail=LongTailSettings(rare_intents=("refund",)))
    settings = Settings(
        gateway=GatewaySettings(resume_wait_s=0.3),
        models=(
            ModelSettings(name="m", source="x", price=DEAR, fallback=rare),
            ModelSettings(name="s", source="x", price=CHEAP),
        ),
        tenants=(TenantSettings(id="t", key_sha256=(hash_key(KEY),)),),
    )
    async with http_world(settings, {"m": encoder, "s": encoder}, ledger=ledger) as world:
        yield world


def _door(**fields: Any) -> MemoryDoor:
    headers = {"authorization": f"Bearer {KEY}", "x-request-id": "r1"}
    return MemoryDoor(json.dumps(HELLO | fields).encode(), headers)


class _Client:
    """Notes with each message how many records there were when it was sent."""

    def __init__(self, ledger: RecordingLedger, breaks: BaseException | None = None) -> None:
        self._ledger = ledger
        self._breaks = breaks
        self.sent: list[tuple[dict[str, Any], int]] = []

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append((message, len(self._ledger.records)))
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if self._breaks is not None and last:
            raise self._breaks

    @property
    def at_the_end(self) -> int:
        """Records there were when the last of the answer was sent."""
        message, count = self.sent[-1]
        assert message["type"] == "http.response.body"
        assert not message.get("more_body", False)
        return count


def _asked(world: World, client: _Client, stream: bool = True) -> asyncio.Task[None]:
    """A chat request of the client's, under way."""
    chat = DIALECTS.find("/v1/chat/completions")
    assert chat is not None
    sink = HttpSink(client.send, chat)
    return asyncio.create_task(world.gateway.handle(chat, _door(stream=stream), sink))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_record_is_there_before_the_last_byte(
    world: World, ledger: RecordingLedger, stream: bool
) -> None:
    replica = await world.add_replica("a")
    client = _Client(ledger)
    handling = _asked(world, client, stream)
    await until(lambda: "r1" in replica.generator.started)
    replica.generator.say("r1", "one")
    if stream:
        await until(lambda: len(client.sent) > 1)
        assert client.sent[-1][1] == 0
    replica.generator.end("r1", "two", count=2)
    await handling
    assert client.at_the_end == len(ledger.records) == 1
    (record,) = ledger.records
    assert (record.billed_output_tokens, record.nano_usd) == (
        2,
        record.prompt_tokens * 1000 + 20_000,
    )
    assert record.key != ""


async def test_in_memory_too(world: World, ledger: RecordingLedger) -> None:
    replica = await world.add_replica("a")
    chat, sink = DIALECTS.find("/v1/chat/completions"), MemorySink()
    assert chat is not None
    handling = asyncio.create_task(world.gateway.handle(chat, _door(), sink))
    await until(lambda: "r1" in replica.generator.started)
    replica.generator.end("r1", "yes")
    await handling
    assert sink.status == 200
    assert [record.billed for record in ledger.records] == [True]


async def test_an_error_is_booked_before_it_is_told(world: World, ledger: RecordingLedger) -> None:
    """The stream broke off after its client had seen a part of it: that part is billed."""
    replica = await world.add_replica("a")
    client = _Client(ledger)
    handling = _asked(world, client)
    await until(lambda: "r1" in replica.generator.started)
    replica.generator.say("r1", "one")
    await until(lambda: len(client.sent) > 1)
    number = replica.generator.requests["r1"].stream
    replica.generator.started["r1"](wire.Failed(number, 400, "no"))
    await handling
    assert client.at_the_end == 1
    (record,) = ledger.records
    assert (record.billed, record.billed_output_tokens) == (True, 1)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("breaks", [asyncio.CancelledError(), RuntimeError("broken pipe")])
async def test_what_becomes_of_the_last_byte_is_booked_no_more(
    world: World, ledger: RecordingLedger, breaks: BaseException, stream: bool
) -> None:
    """A client that leaves then has its answer; that it could not be written is a failure."""
    heard: list[Ending] = []
    world.gateway.ends.listeners.append(lambda record, ending: heard.append(ending))
    replica = await world.add_replica("a")
    handling = _asked(world, _Client(ledger, breaks), stream)
    await until(lambda: "r1" in replica.generator.started)
    replica.generator.end("r1", "yes")
    await asyncio.wait({handling})
    assert [(record.billed, record.slo) for record in ledger.records] == [(True, "met")]
    (ending,) = heard
    left = isinstance(breaks, asyncio.CancelledError)
    assert ending.cause is (Cause.ANSWERED if left else Cause.FAILED)
    assert (ending.code, ending.ttft_met) == (("", True) if left else ("internal_error", False))
    assert ending.nano_usd == ledger.records[0].nano_usd


async def test_a_client_that_leaves_makes_its_answer_miss_nothing(
    world: World, ledger: RecordingLedger
) -> None:
    replica = await world.add_replica("a")
    client = _Client(ledger)
    handling = _asked(world, client)
    await until(lambda: "r1" in replica.generator.started)
    replica.generator.say("r1", "one")
    await until(lambda: len(client.sent) > 1)
    handling.cancel()
    await asyncio.wait({handling})
    (record,), (ended,) = ledger.records, world.gateway.recent.ended()
    assert (record.slo, record.ttft_ms, record.billed) == ("met", -1, True)
    assert (ended.code, ended.ttft_ms, ended.nano_usd) == ("client_gone", None, record.nano_usd)
    assert metric(world, "met") - metric(world, "missed") == 1


def metric(world: World, verdict: str) -> float:
    """Requests by whether their first token came in time."""
    metrics = world.gateway.metrics
    return float(metrics.slo.labels("t", "m", "standard", "ttft", verdict)._value.get())


async def test_a_student_that_answers_is_billed_at_its_price(
    world: World, ledger: RecordingLedger
) -> None:
    await world.add_replica("a")
    student = await world.add_student_replica("z")
    asked = {key: value for key, value in HELLO.items() if key != "model"}
    pending = asyncio.ensure_future(world.post({**asked, "metadata": {"intent": "refund"}}))
    await until(lambda: "r1" in student.generator.started)
    student.generator.end("r1", "yes", count=3)
    assert (await pending).status == 200
    await until(lambda: ledger.records)
    (record,) = ledger.records
    assert (record.model, record.asked, record.spill) == ("s", "m", "long-tail")
    assert record.nano_usd == record.prompt_tokens * 100 + 3000
    assert record.asked_nano_usd == record.prompt_tokens * 1000 + 30_000


async def test_a_model_that_failed_before_is_the_platforms_loss(
    world: World, ledger: RecordingLedger
) -> None:
    teacher, student = await world.add_replica("a"), await world.add_student_replica("z")
    teacher.generator.refuse = OverloadedError("the engine is down")
    asked = {key: value for key, value in HELLO.items() if key != "model"}
    pending = asyncio.ensure_future(world.post(asked))
    await until(lambda: "r1" in student.generator.started)
    student.generator.end("r1", "yes", count=3)
    assert (await pending).status == 200
    await until(lambda: ledger.records)
    found = [(r.model, r.billed, r.loss, r.requests) for r in ledger.records]
    assert found == [("m", False, Loss.FAILED, 1), ("s", True, Loss.NONE, 0)]


async def test_what_a_replica_says_later_is_a_record_of_its_own(
    world: World, ledger: RecordingLedger
) -> None:
    replica = await world.add_replica("a")
    client = _Client(ledger)
    handling = _asked(world, client)
    await until(lambda: "r1" in replica.generator.started)
    replica.generator.say("r1", "one")
    await until(lambda: len(client.sent) > 1)
    put, number = replica.generator.started["r1"], replica.generator.requests["r1"].stream
    handling.cancel()
    await until(lambda: ledger.records)
    await until(lambda: replica.generator.aborted)
    (record,) = ledger.records
    assert (record.output_tokens, record.part) == (1, Part.WHOLE)
    put(wire.Used(number, record.prompt_tokens, 0, 4, 0.5, -1.0))
    await until(lambda: len(ledger.records) == 2)
    late: UsageRecord = ledger.records[1]
    assert late.leg == f"{record.leg}l"
    assert (late.prompt_tokens, late.output_tokens) == (0, 3)
    assert (late.billed, late.loss, late.nano_usd) == (False, Loss.UNSEEN, 0)
    put(wire.Used(number, record.prompt_tokens, 0, 4, 0.5, -1.0))
    await asyncio.sleep(0.05)
    assert len(ledger.records) == 2
