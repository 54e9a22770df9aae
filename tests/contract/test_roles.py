"""A replica's role changes while it answers: nothing of it is seen in any answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from deployments import wire
from deployments.testing.cluster import Cluster, Host, until
from deployments.testing.exchange import Exchange
from deployments.testing.judging import ask, owed, right_answers
from deployments.testing.kinds import KINDS, Kind, agrees
from router.types import Role

Play = Callable[..., None]
streamed_kinds = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.streams], ids=lambda kind: kind.name
)
virtual = pytest.mark.parametrize("play", ["virtual"], indirect=True)


def _change(host: Host, role: Role) -> None:
    host.streams.roles.change(role, asyncio.get_running_loop().time())


async def _heard(cluster: Cluster, name: str, role: Role) -> None:
    members = cluster.model.router
    await until(lambda: any(i.role == role for i in members.members if i.replica_id == name))


async def _right(cluster: Cluster, kind: Kind, told: Exchange, name: str, number: int) -> None:
    answer = kind.read(bytes((await told.done()).raw), kind.streams)
    assert told.status == 200, told.raw
    assert answer.complete
    right = right_answers(cluster, kind, name, number)
    assert len(answer.said) == len(right)
    assert all(map(agrees, answer.said, right)), (answer.said, right)


def _moves(cluster: Cluster, reason: str) -> int:
    return int(cluster.gateway.metrics.moves.labels("m", reason)._value.get())


def _billed(cluster: Cluster) -> None:
    """Each prompt once. What an engine had generated when a stream left it, and nobody was sent, is
    nobody's."""
    due, bill = owed(cluster), cluster.bill("one")
    assert bill.prompt_tokens == due.prompt_tokens
    unseen = due.output_tokens - bill.output_tokens
    assert 0 <= unseen <= 2 * _moves(cluster, "role")


@streamed_kinds
def test_streams_go_on_when_their_replica_is_to_compute_prompts(play: Play, kind: Kind) -> None:
    async def scenario(cluster: Cluster) -> None:
        hosts = [await cluster.add(name, 0.1, changes_role=True) for name in ("a", "b", "c")]
        limit = {kind.limit_field: 60}
        asked = [ask(cluster, kind, n, True, "one", f"r{n}", **limit) for n in range(6)]
        await until(lambda: sum(len(h.meter.streams) for h in hosts) >= 6 * kind.choices)
        before = len(hosts[0].meter.streams)
        assert before
        _change(hosts[0], "prefill")
        await _heard(cluster, "a", "prefill")
        for n, told in enumerate(asked):
            await _right(cluster, kind, told, f"r{n}", n)
        await cluster.idle()
        _billed(cluster)
        assert not _moves(cluster, "failure")
        assert not _moves(cluster, "drain")
        late = ask(cluster, kind, 7, True, "one", "late", **limit)
        await _right(cluster, kind, late, "late", 7)
        answered = [s.request for s in hosts[0].meter.streams[before:]]
        assert all(isinstance(r, wire.Submit) and r.handoff == wire.Keep() for r in answered)
        await cluster.idle()

    play(scenario, rule="always")


@virtual
def test_long_streams_have_moved_after_a_while(play: Play) -> None:
    kind = next(kind for kind in KINDS if kind.name == "chat")

    async def scenario(cluster: Cluster) -> None:
        hosts = [await cluster.add(name, 0.1, changes_role=True) for name in ("a", "b")]
        asked = [
            ask(cluster, kind, n, True, "one", f"r{n}", max_tokens=200, ignore_eos=True)
            for n in range(8)
        ]
        await until(lambda: sum(s.output_tokens > 2 for h in hosts for s in h.meter.streams) == 8)
        running = hosts[0].generator.running
        assert running
        _change(hosts[0], "prefill")
        await asyncio.sleep(5.0)
        assert hosts[0].generator.running == 0
        assert _moves(cluster, "role") == running
        _change(hosts[0], "mixed")
        await _heard(cluster, "a", "mixed")
        for n, told in enumerate(asked):
            await _right(cluster, kind, told, f"r{n}", n)
        assert _moves(cluster, "role") == running
        await cluster.idle()
        _billed(cluster)

    play(scenario, rule="always")


@virtual
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_where_nobody_else_answers_streams_stay(play: Play, role: Role) -> None:
    """That is so when the others are lost right after a change."""
    kind = next(kind for kind in KINDS if kind.name == "chat")

    async def scenario(cluster: Cluster) -> None:
        host = await cluster.add("a", 0.1, changes_role=True)
        told = ask(cluster, kind, 1, True, "one", "r1", max_tokens=100, ignore_eos=True)
        await until(lambda: any(s.output_tokens > 2 for s in host.meter.streams))
        _change(host, role)
        await _heard(cluster, "a", role)
        await _right(cluster, kind, told, "r1", 1)
        again = ask(cluster, kind, 2, True, "one", "r2")
        await _right(cluster, kind, again, "r2", 2)
        await cluster.idle()
        assert not _moves(cluster, "role")

    play(scenario, rule="always")


@virtual
def test_prompts_that_are_computed_for_others_are_not_moved(play: Play) -> None:
    kind = next(kind for kind in KINDS if kind.name == "chat")

    async def scenario(cluster: Cluster) -> None:
        host = await cluster.add("a", 0.1, changes_role=True)
        await cluster.add("d", 0.1, role="decode")
        host.freeze_engine()
        told = ask(cluster, kind, 1, True, "one", "r1")
        await until(lambda: len(host.meter.streams) == 1)
        _change(host, "prefill")
        await asyncio.sleep(2.5)
        host.thaw_engine()
        await _right(cluster, kind, told, "r1", 1)
        assert len(host.meter.streams) == 1
        await cluster.idle()

    play(scenario, rule="always")
