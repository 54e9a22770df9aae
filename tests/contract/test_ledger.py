"""What each kind of request leaves in the ledger. That its sums are the engines' own, and the bill,
is checked wherever a test waits for a cluster to be idle (:meth:`Cluster.idle`)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deployments.testing.cluster import Cluster, until
from deployments.testing.judging import ask
from deployments.testing.kinds import KINDS, Kind
from weir.errors import BadRequestError, OverloadedError
from weir.ledger import Loss, Part, UsageRecord

Play = Callable[..., None]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
streamed_kinds = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.streams], ids=lambda kind: kind.name
)
virtual = pytest.mark.parametrize("play", ["virtual"], indirect=True)


def _whole(cluster: Cluster) -> list[UsageRecord]:
    return [record for record in cluster.ledger.records if record.part is Part.WHOLE]


def _place(record: UsageRecord) -> tuple[int, int, int]:
    """Attempt, choice and leg."""
    _, attempt, choice, leg = record.leg.split(".")
    return int(attempt), int(choice), int(leg)


@every_kind
def test_one_record_for_each_choice(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = await cluster.add("a")
        await ask(cluster, kind, 1, kind.streams, "one", "r").done()
        await cluster.idle()
        records = cluster.ledger.records
        assert sorted(map(_place, records)) == [(0, choice, 0) for choice in range(kind.choices)]
        assert len(host.meter.streams) == kind.choices
        assert sum(record.requests for record in records) == 1
        for record in records:
            assert record.billed
            assert (record.tenant, record.replica, record.model) == ("one", "a", "m")
            assert record.asked in ("m", "m:tone")
            assert record.priority_class == "standard"
            assert record.started_ms <= record.ended_ms
            assert record.nano_usd > 0 or record.loss is Loss.SHARED
            if record.output_tokens:
                assert record.decode_us is not None
                assert record.prefill_us is not None

    play(scenario)


@virtual
@every_kind
def test_a_request_that_reached_nobody_leaves_nothing(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        told = await ask(cluster, kind, 1, kind.streams, "one", "r").done()
        assert told.status == 503 or kind.background
        wrong = await ask(cluster, kind, 1, kind.streams, "nobody's", "r2").done()
        assert wrong.status == 401
        await cluster.idle()
        assert cluster.ledger.records == []

    play(scenario)


@virtual
@every_kind
def test_a_request_that_is_refused_is_the_platforms_loss(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = await cluster.add("a")
        host.generator.refuse = BadRequestError("not that")
        await ask(cluster, kind, 1, kind.streams, "one", "r").done()
        await cluster.idle()
        records = cluster.ledger.records
        assert records
        for record in records:
            assert (record.billed, record.loss, record.nano_usd) == (False, Loss.FAILED, 0)

    play(scenario)


@virtual
@every_kind
def test_a_leg_in_vain_and_the_one_that_answers(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        dead, _ = await cluster.add("a"), await cluster.add("b")
        dead.generator.refuse = OverloadedError("the engine is down")
        for number in range(4):  # one of them at least goes to each replica first
            told = await ask(cluster, kind, 1, kind.streams, "one", f"r{number}").done()
            assert told.status == 200
        await cluster.idle()
        answered = [record for record in _whole(cluster) if record.replica == "b"]
        in_vain = [record for record in _whole(cluster) if record.replica == "a"]
        assert len(answered) == 4 * kind.choices
        for record in in_vain:
            assert _place(record)[2] == 0
            assert record.prompt_tokens == record.output_tokens == 0
        assert sum(record.requests for record in cluster.ledger.records) == 4

    play(scenario)


@streamed_kinds
def test_what_was_generated_for_nobody_is_counted_later(play: Play, kind: Kind) -> None:
    """A client leaves: its engine has put out tokens that are still on their way."""

    async def scenario(cluster: Cluster) -> None:
        host = await cluster.add("a", interval_s=0.02)
        told = ask(cluster, kind, 1, True, "one", "r")
        await until(lambda: len(host.meter.streams) == kind.choices)
        await until(lambda: min(served.output_tokens for served in host.meter.streams) >= 2)
        await told.leave()
        await cluster.idle()
        for record in cluster.ledger.records:
            late = record.part is Part.LATE
            assert record.leg.endswith("l") == late
            assert (record.loss is Loss.UNSEEN) == late
            if late:
                assert record.billed_output_tokens == record.nano_usd == record.requests == 0
                assert record.output_tokens > 0

    play(scenario)


@virtual
@streamed_kinds
def test_a_stream_that_moves_has_two_legs_and_one_prompt(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        hosts = [await cluster.add(name, interval_s=0.02) for name in ("a", "b")]
        told = ask(cluster, kind, 1, True, "one", "r")
        await until(lambda: any(served.output_tokens > 2 for h in hosts for served in
                                h.meter.streams))  # fmt: skip
        busy = next(host for host in hosts if any(s.output_tokens > 2 for s in host.meter.streams))
        await busy.kill()
        await told.done()
        cluster.withdraw(busy)
        await cluster.idle()
        records = _whole(cluster)
        choices = {_place(record)[1] for record in records}
        assert len(choices) == kind.choices
        moved = [record for record in records if _place(record)[2] > 0]
        assert moved
        for record in moved:
            assert record.replica != busy.name
            if record.prompt_tokens and record.loss is not Loss.NONE:
                assert record.billed_prompt_tokens == 0
                assert record.loss in (Loss.MOVED, Loss.SHARED)
        first = [record for record in records if _place(record)[2] == 0]
        assert any(record.replica == busy.name for record in first)

    play(scenario)


@virtual
@streamed_kinds
def test_both_replicas_of_a_prompt_that_was_handed_over(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.add("p", role="prefill")
        await cluster.add("d", role="decode")
        await ask(cluster, kind, 1, True, "one", "r").done()
        await cluster.idle()
        shared = [record for record in cluster.ledger.records if record.part is Part.PREFILL]
        if not shared:  # the replica that answers has to compute it
            assert kind.name in ("image", "echo")
            return
        assert len(shared) == kind.choices
        for record in shared:
            assert record.leg.endswith("p")
            assert (record.replica, record.loss) == ("p", Loss.HANDED_OVER)
            assert record.prompt_tokens > 0
            assert record.nano_usd == record.billed_prompt_tokens == 0
        for record in _whole(cluster):
            assert (record.replica, record.prefill_replica) == ("d", "p")
            assert record.billed_prompt_tokens > 0 or record.loss is Loss.SHARED

    play(scenario, rule="always")


def test_a_clients_label_is_in_its_records(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.add("a")
        chat = next(kind for kind in KINDS if kind.name == "chat")
        label = {"metadata": {"label": "nightly\n\x00run"}}
        await ask(cluster, chat, 1, True, "one", "r1", **label).done()
        await ask(cluster, chat, 1, True, "one", "r2").done()
        await cluster.idle()
        assert [record.label for record in cluster.ledger.records] == ["nightlyrun", ""]

    play(scenario)
