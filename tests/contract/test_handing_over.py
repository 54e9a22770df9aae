"""Prompts computed by one replica, answered by another: the same answers, and the right bill."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deployments import wire
from deployments.streams import CannotDoError
from deployments.testing.cluster import Cluster, Host, until
from deployments.testing.judging import Owed, ask, owed, right_answers
from deployments.testing.kept import Wait
from deployments.testing.kinds import KINDS, Kind, agrees
from weir.errors import BadRequestError, OverloadedError

Play = Callable[..., None]
#: Kinds whose prompts are handed over; the others are computed by the replica that answers.
SHARED = [k for k in KINDS if k.streams and k.name not in ("image", "echo")]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
shared_kinds = pytest.mark.parametrize("kind", SHARED, ids=lambda kind: kind.name)
#: What goes wrong goes wrong in virtual time; over sockets it would take minutes.
virtual = pytest.mark.parametrize("play", ["virtual"], indirect=True)
every_form = pytest.mark.parametrize(
    ("kind", "stream"),
    [(kind, stream) for kind in KINDS for stream in ((False, True)[: 1 + kind.streams])],
    ids=lambda value: value.name if isinstance(value, Kind) else ("whole", "streamed")[value],
)


async def _pair(cluster: Cluster, interval_s: float = 0.005) -> tuple[Host, Host]:
    return (
        await cluster.add("p", interval_s, role="prefill"),
        await cluster.add("d", interval_s, role="decode"),
    )


def _handoffs(cluster: Cluster, outcome: str) -> int:
    counter = cluster.gateway.metrics.handoffs.labels("m", outcome)
    return int(counter._value.get())


def _keeps(host: Host) -> int:
    return sum(isinstance(s.request, wire.Submit) and isinstance(s.request.handoff, wire.Keep)
               for s in host.meter.streams)  # fmt: skip


async def _right(cluster: Cluster, kind: Kind, stream: bool, request_id: str, number: int) -> None:
    told = ask(cluster, kind, number, stream, "one", request_id)
    answer = kind.read(bytes((await told.done()).raw), stream)
    assert told.status == 200, told.raw
    assert answer.complete
    right = right_answers(cluster, kind, request_id, number)
    assert len(answer.said) == len(right)
    assert all(map(agrees, answer.said, right)), (answer.said, right)


@every_form
def test_the_answer_is_right_and_the_bill_too(play: Play, kind: Kind, stream: bool) -> None:
    async def scenario(cluster: Cluster) -> None:
        prefill, decode = await _pair(cluster)
        for request_id, number in (("r1", 1), ("r2", 1), ("r3", 2)):
            await _right(cluster, kind, stream, request_id, number)
        await cluster.idle()
        due = owed(cluster)
        assert cluster.bill("one") == due.bill(cluster)
        assert cluster.bill("two") == Owed().bill(cluster)
        # One way or the other, and the same for all: the choices of each of three requests.
        taken, whole = _handoffs(cluster, "taken"), _handoffs(cluster, "whole")
        assert taken == cluster.kept.taken == _keeps(prefill)
        assert sorted((taken, whole)) == [0, 3 * kind.choices]
        assert len(decode.meter.streams) == 3 * kind.choices
        if kind.name in ("chat", "completions"):
            assert taken
            # The second time, the prefill replica had the prompt.
            assert due.cached_tokens > 0

    play(scenario, rule="always")


@virtual
@shared_kinds
def test_a_client_is_told_who_did_what(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        await _pair(cluster)
        told = await ask(cluster, kind, 1, kind.streams, "one", "r").done()
        if not kind.background:
            assert told.headers["x-weir-replica"] == "d"
            assert told.headers["x-weir-prefill-replica"] == "p"
        await cluster.idle()

    play(scenario, rule="always")


@virtual
@shared_kinds
def test_a_refused_prompt_is_the_clients_error(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        prefill, decode = await _pair(cluster)
        prefill.generator.refuse = BadRequestError("the engine does not take this")
        told = await ask(cluster, kind, 1, kind.streams, "one", "r").done()
        assert told.status == (200 if kind.background else 400)
        error = kind.read(bytes(told.raw), False).error
        assert error is not None
        assert "does not take this" in error["message"]
        await cluster.idle()
        assert not decode.meter.streams

    play(scenario, rule="always")


@virtual
@shared_kinds
@pytest.mark.parametrize("how", ["is down", "cannot", "died"])
def test_without_its_prefill_replica_the_other_does_everything(
    play: Play, kind: Kind, how: str
) -> None:
    async def scenario(cluster: Cluster) -> None:
        prefill, _ = await _pair(cluster)
        if how == "is down":
            prefill.generator.refuse = OverloadedError("the engine is down")
        elif how == "cannot":
            prefill.generator.refuse = CannotDoError("this engine hands nothing over")
        else:
            await prefill.kill()
        await _right(cluster, kind, kind.streams, "r", 1)
        await cluster.idle()
        assert cluster.bill("one") == owed(cluster).bill(cluster)
        assert not _handoffs(cluster, "taken")

    play(scenario, rule="always", hasty=True)


@virtual
@shared_kinds
@pytest.mark.parametrize("way", ["dies", "freezes"])
def test_a_prefill_replica_is_lost_in_the_prompt(play: Play, kind: Kind, way: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        prefill, _ = await _pair(cluster)
        prefill.freeze_engine()
        told = ask(cluster, kind, 1, kind.streams, "one", "r")
        await until(lambda: _keeps(prefill) == kind.choices)
        if way == "dies":
            await prefill.kill()
        else:
            prefill.freeze()
        answer = kind.read(bytes((await told.done()).raw), kind.streams)
        assert told.status == 200, told.raw
        assert answer.complete
        right = right_answers(cluster, kind, "r", 1)
        assert all(map(agrees, answer.said, right))
        await until(lambda: not cluster.gateway_left_over())
        assert _handoffs(cluster, "prefill_failed") == kind.choices

    play(scenario, rule="always", hasty=True)


@virtual
@shared_kinds
def test_blocks_that_are_gone_are_computed_again(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        prefill, decode = await _pair(cluster)
        keep = cluster.kept.keep

        def keep_nothing(owner: object, going: Wait) -> bytes:
            key = keep(owner, going)
            cluster.kept.lose(owner)
            return key

        cluster.kept.keep = keep_nothing  # type: ignore[method-assign]
        await _right(cluster, kind, kind.streams, "r", 1)
        await cluster.idle()
        # The prompt is owed once, as the prefill replica had it.
        assert cluster.bill("one") == owed(cluster).bill(cluster)
        assert _handoffs(cluster, "recomputed") >= 1
        assert len(decode.meter.streams) == _keeps(prefill) == kind.choices

    play(scenario, rule="always")


@virtual
@shared_kinds
@pytest.mark.parametrize("moment", ["before its first token", "after"])
def test_the_answering_replica_is_lost(play: Play, kind: Kind, moment: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        await _pair(cluster, 0.02)
        other = await cluster.add("e", 0.02, role="decode")
        hosts = [cluster.hosts["d"], other]
        if moment == "before its first token":
            for host in hosts:
                host.freeze_engine()
        told = ask(cluster, kind, 1, kind.streams, "one", "r")
        await until(lambda: any(host.meter.streams for host in hosts))
        busy = next(host for host in hosts if host.meter.streams)
        if moment == "after":
            await until(lambda: any(s.output_tokens >= 3 for s in busy.meter.streams))
        await busy.kill()
        for host in hosts:
            host.thaw_engine()
        answer = kind.read(bytes((await told.done()).raw), kind.streams)
        assert told.status == 200, told.raw
        assert answer.complete
        right = right_answers(cluster, kind, "r", 1)
        assert all(map(agrees, answer.said, right))
        await until(lambda: not cluster.gateway_left_over())
        await until(lambda: not cluster.kept.held())

    play(scenario, rule="always", hasty=True)


@virtual
@shared_kinds
def test_a_client_leaves_while_its_prompt_is_computed(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        prefill, decode = await _pair(cluster)
        prefill.freeze_engine()
        told = ask(cluster, kind, 1, kind.streams, "one", "r")
        await until(lambda: _keeps(prefill) == kind.choices)
        await told.leave()
        await cluster.idle()
        bill = cluster.bill("one")
        assert (bill.output_tokens, bill.cached_tokens) == (0, 0)
        assert bill.prompt_tokens == owed(cluster).prompt_tokens
        assert not decode.meter.streams

    play(scenario, rule="always")


@virtual
def test_a_replica_that_never_hands_over_is_given_up(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        prefill, decode = await _pair(cluster)
        keep = cluster.kept.keep

        def keep_and_hang(owner: object, going: Wait) -> bytes:
            prefill.freeze_engine()
            return keep(owner, going)

        cluster.kept.keep = keep_and_hang  # type: ignore[method-assign]
        told = ask(cluster, KINDS[0], 1, True, "one", "r")
        answer = KINDS[0].read(bytes((await told.done()).raw), True)
        assert told.status == 200, told.raw
        assert answer.complete
        (served,) = decode.meter.streams
        assert isinstance(served.request, wire.Submit)
        assert served.request.handoff is None
        assert cluster.bill("one").prompt_tokens == served.prompt_tokens
        prefill.thaw_engine()
        await cluster.idle()

    play(scenario, rule="always")
