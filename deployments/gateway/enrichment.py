"""Step 4, put together: the look-up begins as soon as the body is read, and ends before it is
tokenized."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from redis.asyncio import Redis

from deployments.gateway.bodies.requests import ChatBody, ChatMessage, CompletionBody, ContentPart
from deployments.gateway.feature_store import build_link, tail_url
from features.enrichment import (
    Enrichment,
    EnrichRule,
    RuleBook,
    TemplateFailedError,
    compile_rules,
    place,
)
from features.enrichment.outcome import require
from features.enrichment.placement import Edit, join
from features.enrichment.source import Found
from features.online import (
    CacheSettings,
    ClusterLink,
    FeatureReader,
    FeatureRow,
    Lookup,
    StoreLink,
    StoreState,
)
from features.tail import TailQueue
from weir.metrics import GatewayMetrics
from weir.settings import Settings
from weir.tenancy import Tenant

Body = ChatBody | CompletionBody
Header = Callable[[bytes], str | None]


class LongTail(Protocol):
    """Takes the entities that should get generated features."""

    async def note(self, tenant_id: str, entity_id: str) -> None:
        """Remember one: at once, within bounds, and without raising because of a store."""
        ...

    async def aclose(self) -> None:
        """Write out what is left."""
        ...


class NotEnriched:
    """A request whose prompt stays as it came."""

    def __init__(self, enrichment: Enrichment[Body]) -> None:
        self._enrichment = enrichment

    async def finish(self) -> Enrichment[Body]:
        """The same body."""
        return self._enrichment


class _Enriching:
    """A look-up under way."""

    def __init__(
        self, enricher: FeatureEnricher, rule: EnrichRule, who: _Who, body: Body, lookup: Lookup
    ) -> None:
        self._enricher = enricher
        self._rule = rule
        self._who = who
        self._body = body
        self._lookup = lookup

    async def finish(self) -> Enrichment[Body]:
        """Waits for the features, at most until the budget is over."""
        began_s = time.perf_counter()
        row = await self._lookup.row()
        waited_s = time.perf_counter() - began_s
        if row.long_tail and self._rule.source.keys.are_own:
            await self._enricher.note(self._who)
        return self._enricher.apply(
            self._rule, self._who, self._body, row, self._lookup.source, waited_s
        )


class _Who:
    __slots__ = ("entity_id", "tenant_id")

    def __init__(self, tenant_id: str, entity_id: str) -> None:
        self.tenant_id = tenant_id
        self.entity_id = entity_id


class FeatureEnricher:
    """Adds online features to prompts, after the rules of ``features.enrich``.

    ``wall`` is seconds since the epoch.
    """

    def __init__(
        self,
        rules: RuleBook,
        link: StoreLink | ClusterLink,
        reader: FeatureReader,
        metrics: GatewayMetrics,
        tail: LongTail | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._link = link
        self._reader = reader
        self._metrics = metrics
        self._tail = tail
        self._wall = wall

    def start(self) -> None:
        """Connect, and fetch issuers' keys, in the background."""
        self._link.start()
        for keys in self._rules.key_sets:
            keys.start()

    async def connected(self) -> None:
        """For tests and benches; requests never wait for it."""
        await self._link.wait_until_up()

    async def close(self) -> None:
        """Drop the connection."""
        for keys in self._rules.key_sets:
            await keys.close()
        await self._link.close()
        if self._tail is not None:
            await self._tail.aclose()

    def begin(self, tenant: Tenant, body: Body, header: Header) -> NotEnriched | _Enriching:
        """Start the look-up. Never raises; what is begun need not be finished."""
        rule = self._rules.find(body.model, tenant.id, tenant.features)
        if rule is None:
            return NotEnriched(Enrichment(body))
        if not _has_text(body):
            return self._off(tenant, body, Found(None, "", "no-entity", "token-ids"), rule)
        found = rule.source.find(tenant.id, header, body.metadata, self._wall())
        if found.key is None:
            return self._off(tenant, body, found, rule)
        lookup = self._reader.begin(rule.plan, found.key, rule.budget_s)
        return _Enriching(self, rule, _Who(tenant.id, found.entity_id), body, lookup)

    def _off(self, tenant: Tenant, body: Body, found: Found, rule: EnrichRule) -> NotEnriched:
        metrics = self._metrics
        enrichment: Enrichment[Body] = Enrichment(
            body,
            "invalid" if found.problem == "invalid" else "off",
            reason=found.reason,
            problem=found.problem,
        )
        metrics.of(metrics.feature_lookups, tenant.id, body.model, enrichment.outcome).inc()
        if rule.required:
            return _Refused(enrichment, rule.source.field)
        return NotEnriched(enrichment)

    def apply(
        self,
        rule: EnrichRule,
        who: _Who,
        body: Body,
        row: FeatureRow,
        source: str,
        waited_s: float,
    ) -> Enrichment[Body]:
        """The enriched body, counted.

        Raises:
            WeirError: the rule requires features that could not be had.
        """
        now_s = self._wall()
        enrichment: Enrichment[Body] = Enrichment(
            body,
            row.outcome,
            ",".join(sorted(set(row.reasons.values()))) if row.outcome != "hit" else "",
            long_tail=row.long_tail,
            entity_id=who.entity_id,
            age_s=row.age_s(now_s),
        )
        try:
            today = dt.datetime.fromtimestamp(now_s, dt.UTC).date()
            text = rule.template.render(row, today)
        except TemplateFailedError:
            enrichment = replace(enrichment, outcome="partial", reason="template")
        else:
            if text:
                enriched = add_text(body, text, rule)
                enrichment = replace(enrichment, body=enriched, enriched=True)
        self._count(rule, who, body.model, row, enrichment, source, waited_s)
        if rule.required:
            require(enrichment, rule.source.field)
        return enrichment

    def _count(
        self,
        rule: EnrichRule,
        who: _Who,
        model: str,
        row: FeatureRow,
        enrichment: Enrichment[Body],
        source: str,
        waited_s: float,
    ) -> None:
        metrics = self._metrics
        metrics.feature_lookups.labels(who.tenant_id, model, enrichment.outcome).inc()
        metrics.feature_wait.labels(model).observe(waited_s)
        metrics.feature_reads.labels(source).inc()
        if enrichment.age_s is not None:
            metrics.feature_age.labels(model).observe(enrichment.age_s)
        for reason in row.reasons.values():
            metrics.feature_defaults.labels(rule.plan.spec.name, reason).inc()
        if row.long_tail:
            metrics.long_tail.labels(who.tenant_id, model).inc()

    async def note(self, who: _Who) -> None:
        """Tell the generator of a long-tail entity."""
        if self._tail is not None:
            await self._tail.note(who.tenant_id, who.entity_id)


class _Refused(NotEnriched):
    """No entity, where one is required."""

    def __init__(self, enrichment: Enrichment[Body], field: str) -> None:
        super().__init__(enrichment)
        self._field = field

    async def finish(self) -> Enrichment[Body]:
        """Raises: WeirError: what is wrong with the entity or with its token."""
        require(self._enrichment, self._field)
        return self._enrichment


def add_text(body: Body, text: str, rule: EnrichRule) -> Body:
    """The body with ``text`` where the rule wants it; a plain prompt gets it in front."""
    if isinstance(body, ChatBody):
        edit = place([m.role for m in body.messages], rule.placement)
        return body.model_copy(update={"messages": _edited(body.messages, edit, text)})
    prompt = body.prompt
    if isinstance(prompt, str):
        return body.model_copy(update={"prompt": join("prepend", prompt, text)})
    prompts = [join("prepend", each, text) for each in prompt if isinstance(each, str)]
    return body.model_copy(update={"prompt": prompts})


def _has_text(body: Body) -> bool:
    """Token ids cannot be added to: whoever sends them has rendered the prompt already."""
    if isinstance(body, ChatBody) or isinstance(body.prompt, str):
        return True
    return isinstance(body.prompt[0], str)


def _edited(messages: list[ChatMessage], edit: Edit, text: str) -> list[ChatMessage]:
    edited = list(messages)
    if edit.kind == "insert":
        edited.insert(edit.index, ChatMessage(role="system", content=text))
        return edited
    message = messages[edit.index]
    content = message.content
    if isinstance(content, list):
        part = ContentPart(type="text", text=text)
        parts = [*content, part] if edit.kind == "append" else [part, *content]
        edited[edit.index] = message.model_copy(update={"content": parts})
    else:
        joined = join(edit.kind, content or "", text)
        edited[edit.index] = message.model_copy(update={"content": joined})
    return edited


def build_enricher(
    settings: Settings,
    metrics: GatewayMetrics,
    environment: Mapping[str, str],
) -> FeatureEnricher:
    """The enricher that the settings describe, not started.

    Raises:
        ConfigError: the rules or the store's URL cannot be used.
    """
    rules = compile_rules(settings.features, environment)

    def on_change(state: StoreState) -> None:
        metrics.feature_store_up.set(state == "up")
        if state == "down":
            metrics.feature_store_breaks.inc()

    link = build_link(settings, environment, on_change)
    queue = Redis.from_url(tail_url(settings, environment))
    tail = TailQueue(queue, on_drop=metrics.tail_notes_dropped.inc)
    cache = settings.features.cache
    reader = FeatureReader(
        link, CacheSettings(cache.entries, cache.ttl_ms / 1000, cache.negative_ttl_ms / 1000)
    )
    return FeatureEnricher(rules, link, reader, metrics, tail)
