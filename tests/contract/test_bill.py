"""Every kind of request: the right answer, and a bill that equals the engine's own counters."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from deployments import wire
from deployments.gateway.dialects import DIALECTS
from deployments.testing.cluster import CONTEXT_TOKENS, Cluster
from deployments.testing.judging import Owed, ask, owed, right_answers
from deployments.testing.kinds import KINDS, Kind, agrees

Play = Callable[..., None]
STREAMED = [(kind, stream) for kind in KINDS for stream in ((False, True)[: 1 + kind.streams])]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
every_form = pytest.mark.parametrize(
    ("kind", "stream"),
    STREAMED,
    ids=[f"{kind.name}-{'streamed' if stream else 'whole'}" for kind, stream in STREAMED],
)


def test_every_dialect_has_a_kind() -> None:
    # What only looks at a prompt generates nothing, and has tests of its own.
    looking = {"/v1/messages/count_tokens", "/tokenize", "/detokenize"}
    assert {dialect.path for dialect in DIALECTS} - looking == {kind.path for kind in KINDS}


def test_counting_tokens_asks_no_replica_and_costs_nothing(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = await cluster.add("a")
        kind = next(kind for kind in KINDS if kind.name == "messages-result")
        whole = {"model": cluster.model.name, **kind.body(1)}
        await cluster.ask(kind.path, whole, "one").done()
        await cluster.idle()
        bill = cluster.bill("one")
        counted = {name: value for name, value in whole.items() if name != "max_tokens"}
        told = await cluster.ask(f"{kind.path}/count_tokens", counted, "one").done()
        assert json.loads(bytes(told.raw)) == {"input_tokens": bill.prompt_tokens}
        await cluster.idle()
        assert cluster.bill("one") == bill
        assert len(host.meter.streams) == 1

    play(scenario)


def test_every_kind_has_a_name_of_its_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@every_form
def test_the_answer_is_right_and_the_bill_too(play: Play, kind: Kind, stream: bool) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.add("a")
        # The second one finds the first one's prompt cached.
        for request_id, number in (("r1", 1), ("r2", 1), ("r3", 2)):
            told = ask(cluster, kind, number, stream, "one", request_id)
            answer = kind.read(bytes((await told.done()).raw), stream)
            assert told.status == 200, told.raw
            assert answer.complete
            right = right_answers(cluster, kind, request_id, number)
            assert len(answer.said) == len(right)
            assert all(map(agrees, answer.said, right)), (answer.said, right)
        await cluster.idle()
        due = owed(cluster)
        assert due.output_tokens > 0 or not kind.streams
        assert due.cached_tokens > 0 or kind.name in ("ids", "image")
        assert cluster.bill("one") == due.bill(cluster)
        assert cluster.bill("two") == Owed().bill(cluster)

    play(scenario)


@every_form
def test_quotas_and_budget_are_charged_what_is_billed_once(
    play: Play, kind: Kind, stream: bool
) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.add("a")
        for request_id, number in (("r1", 1), ("r2", 1)):
            told = ask(cluster, kind, number, stream, "counted", request_id)
            await told.done()
            assert told.status == 200, told.raw
        await cluster.idle()
        bill, book = cluster.bill("counted"), cluster.book
        for scope in ("t", "m:m"):
            counted = book.counted("counted", scope)
            assert counted.daily == (2, bill.prompt_tokens, bill.output_tokens)
            assert counted.concurrent == 0
        assert book.spent_nano_usd("counted") == round(bill.cost_usd * 1e9)
        assert book.open_holds() == 0

    play(scenario)


@every_kind
def test_a_client_is_told_the_counts_that_it_is_billed(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.add("a")
        streams = kind.asks_usage if kind.streams else {}
        told = ask(cluster, kind, 1, kind.streams, "one", "r", **streams)
        usage = kind.read(bytes((await told.done()).raw), kind.streams).usage
        await cluster.idle()
        bill = cluster.bill("one")
        assert usage is not None
        assert usage["prompt_tokens"] == bill.prompt_tokens
        assert usage.get("completion_tokens", 0) == bill.output_tokens

    play(scenario)


def test_an_image_goes_to_the_replica_whole(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = await cluster.add("a")
        kind = next(kind for kind in KINDS if kind.name == "image")
        await ask(cluster, kind, 5, False, "one", "r").done()
        submitted: Any = host.meter.streams[0].request
        assert isinstance(submitted, wire.Submit)
        assert submitted.prompt == []
        assert submitted.messages is not None
        assert submitted.messages["messages"] == kind.body(5)["messages"]

    play(scenario)


def test_an_image_leaves_the_room_that_it_does_not_need(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.add("a")
        kind = next(kind for kind in KINDS if kind.name == "image")
        told = ask(cluster, kind, 5, False, "one", "r", max_tokens=CONTEXT_TOKENS - 100)
        await told.done()
        assert told.status == 200, told.raw

    play(scenario)
