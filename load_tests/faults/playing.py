"""Plays a story with the gateway that ships, in virtual time."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from deployments.gateway.ending import Ending
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.record import Record
from deployments.testing.exchange import MemoryExchange
from deployments.testing.in_memory import MemoryCluster, MemoryHost, memory_cluster
from deployments.testing.judging import ask
from deployments.testing.kinds import TONE
from load_tests.faults.checks import Finding, judge
from load_tests.faults.story import TENANTS, Change, Event, Story, Visit
from router.types import Role
from weir.errors import OverloadedError
from weir.settings import (
    ModelSettings,
    PriceSettings,
    RoutingSettings,
    Settings,
    TenantSettings,
)
from weir.settings.routing import DisaggregationSettings
from weir.tenancy import hash_key
from weir.testing import virtual_time
from weir.testing.schedules import play as play_faults

#: Everything has ended so long after a story's start, in virtual seconds.
PATIENCE_S = 300.0
#: Nothing is reserved anywhere so long after all has ended.
FREED_S = 5.0
PRICE = PriceSettings(
    input_usd_per_million_tokens=3.0,
    cached_input_usd_per_million_tokens=1.0,
    output_usd_per_million_tokens=10.0,
)


#: Everything is reserved and settled; nothing is refused for it.
NEVER_REACHED = {
    "quotas": {"output_tokens_per_day": 10**9, "concurrent_requests": 10**6},
    "budget": {"usd_per_month": 10**6},
}


@dataclass(slots=True)
class Played:
    """What came of a story. ``records``: the gateway's own, one for each request that it settled.
    ``moves_refused``: how often the budget of moves was spent."""

    story: Story
    exchanges: dict[str, MemoryExchange] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    moves_refused: int = 0

    def counts(self) -> Counter[str]:
        """What happened, for the report."""
        counts: Counter[str] = Counter(requests=len(self.records))
        for record in self.records:
            legs = [c.legs for a in record.attempts for c in a.choices if c.legs]
            counts["moves"] += sum(len(each) - 1 for each in legs)
            counts["moves_with_tokens"] += sum(
                any(leg.tokens for leg in each[:-1]) for each in legs
            )
            counts["clients_left"] += record.client_left
            counts["handed_over"] += sum(leg.kept is not None for each in legs for leg in each)
            counts["lost_in_handing_over"] += sum(
                bool(leg.prefill_id) and not leg.tokens for each in legs for leg in each[:-1]
            )
            if record.error is not None and not record.client_left:
                counts["refused_at_the_gate" if not legs else "errors"] += 1
        counts["moves_refused"] += self.moves_refused
        return counts


@dataclass(frozen=True, slots=True)
class Result:
    """What was wrong after a story, and what happened in it."""

    findings: tuple[Finding, ...]
    counts: Counter[str]


@functools.cache
def settings_of(tight: bool, rule: str) -> Settings:
    """As shipped, but for small limits where a story wants full queues. ``rule``: of
    disaggregation."""
    classes = {
        name: {"urgency": urgency, "max_requests": 2}
        for urgency, name in enumerate(("interactive", "standard", "batch"))
    }
    limits = {"places": {"running": 2}, "prefill": {"tokens": 24}}
    admission = {"limits": limits, "classes": classes}
    routing = RoutingSettings(disaggregation=DisaggregationSettings(rule=rule))
    return Settings(
        models=(
            ModelSettings(name="m", source="x", price=PRICE, adapters=(TONE,), routing=routing),
        ),
        tenants=tuple(
            TenantSettings.model_validate({"id": t, "key_sha256": (hash_key(t),), **NEVER_REACHED})
            for t in TENANTS
        ),
        admission=admission if tight else {},
    )


def play_story(story: Story, encoder: PromptEncoder) -> Result:
    """Play it, and judge."""
    settings = settings_of(story.tight, "always" if story.roles else "adaptive")
    played = Played(story)
    try:
        findings = virtual_time.run(_play(played, settings, encoder))
    except (virtual_time.VirtualTimeError, AssertionError) as error:
        findings = [Finding("the run itself", f"{type(error).__name__}: {error}")]
    return Result(tuple(findings), played.counts())


async def _play(played: Played, settings: Settings, encoder: PromptEncoder) -> list[Finding]:
    story = played.story
    async with memory_cluster(settings, encoder, story.seed) as cluster:
        _watch(cluster, played)
        for name, interval_s in zip(story.replicas, story.interval_s, strict=True):
            await cluster.add(name, interval_s, role=story.role(name))
        try:
            async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
                group.create_task(play_faults(story.faults, cluster.network))
                for event in story.events:
                    group.create_task(_change(cluster, event, story.role(event.replica)))
                for visit in story.visits:
                    group.create_task(_visit(cluster, played, visit))
            stuck = False
        except TimeoutError:
            stuck = True
        for event in story.events:
            if event.change is Change.SEIZE:
                await cluster.hosts[event.replica].kill()
        findings = [] if stuck else await _freed(cluster)
        findings += judge(cluster, played, stuck)
        for exchange in played.exchanges.values():
            await exchange.leave()
    left = cluster.network.open_channels()
    return findings + [Finding("channels", f"never closed: {left}")] * bool(left)


def _watch(cluster: MemoryCluster, played: Played) -> None:
    moves = cluster.model.moves
    spend = moves.spend

    def keep(record: Record, ending: Ending) -> None:
        played.records.append(record)

    def spend_and_count(now_s: float, open_streams: int) -> bool:
        granted = spend(now_s, open_streams)
        played.moves_refused += not granted
        return granted

    cluster.gateway.ends.listeners.append(keep)
    moves.spend = spend_and_count  # type: ignore[method-assign]


async def _freed(cluster: MemoryCluster) -> list[Finding]:
    try:
        await cluster.idle(FREED_S)
    except AssertionError as error:
        return [Finding("reservations", str(error))]
    return []


async def _visit(cluster: MemoryCluster, played: Played, visit: Visit) -> None:
    await asyncio.sleep(visit.at_s)
    limit: dict[str, Any] = {visit.kind.limit_field: visit.tokens} if visit.kind.streams else {}
    exchange = ask(
        cluster,
        visit.kind,
        visit.number,
        visit.stream,
        visit.tenant,
        visit.request_id,
        visit.priority_class,
        **limit,
    )
    assert isinstance(exchange, MemoryExchange)
    played.exchanges[visit.request_id] = exchange
    try:
        async with asyncio.timeout(visit.leaves_s):
            await exchange.done()
    except TimeoutError:
        await exchange.leave()


async def _change(cluster: MemoryCluster, event: Event, role: Role) -> None:
    await asyncio.sleep(event.at_s)
    host = cluster.hosts[event.replica]
    if event.change is Change.DRAIN:
        await _drain(cluster, host, event.duration_s, role)
    elif event.change is Change.WITHDRAW:
        cluster.withdraw(host)
        await asyncio.sleep(event.duration_s)
        cluster.announce(host, role=role)
    elif event.change is Change.HANG:
        host.freeze_engine()
        await asyncio.sleep(event.duration_s)
        host.thaw_engine()
    elif event.change is Change.SEIZE:
        host.freeze()
    elif event.change in (Change.PROMPTS, Change.ANSWERS):
        await _other_role(host, event)
    else:
        host.generator.refuse = OverloadedError("The engine is down.")
        await asyncio.sleep(event.duration_s)
        host.generator.refuse = None


async def _other_role(host: MemoryHost, event: Event) -> None:
    """For a while. What it was is known to the life of the host that was asked."""
    roles, clock = host.streams.roles, asyncio.get_running_loop().time
    roles.change("prefill" if event.change is Change.PROMPTS else "decode", clock())
    await asyncio.sleep(event.duration_s)
    roles.change(roles.own, clock())


async def _drain(cluster: MemoryCluster, host: MemoryHost, duration_s: float, role: Role) -> None:
    cluster.withdraw(host)
    await host.streams.drain(duration_s)
    await host.kill()
    await asyncio.sleep(0.5)
    host.restart()
    cluster.announce(host, role=role)
