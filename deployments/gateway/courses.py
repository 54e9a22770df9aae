"""A request's course: which models may answer it, and what the rules want to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from deployments.gateway.bodies import TextBody
from deployments.gateway.fallbacks import Fallback
from deployments.gateway.model import Model
from deployments.gateway.plan import Course
from deployments.gateway.pricing import PriceLists
from deployments.gateway.record import Record
from deployments.gateway.request import Request
from deployments.gateway.rollouts import Rollouts
from deployments.gateway.tokenizing import Prompts
from fallback.policies import CAPACITY, RequestFacts
from weir.cost import Used, usd_of

INTENT_HEADER = b"x-weir-intent"


class Courses:
    """``fallbacks``: of the models that have a student; ``rollouts``: of candidate versions."""

    def __init__(
        self,
        models: Mapping[str, Model],
        fallbacks: Mapping[str, Fallback],
        prices: PriceLists,
        rollouts: Rollouts,
    ) -> None:
        self._rollouts = rollouts
        self._models = models
        self._fallbacks = fallbacks
        self._prices = prices

    async def of(
        self, record: Record, request: Request, prompts: Prompts
    ) -> tuple[Course, RequestFacts]:
        """Who may answer, and what the rules want to know."""
        course, facts = await self._own(record, request, prompts)
        candidate = self._rollouts.candidate_of(request)
        if candidate in self._models:
            return replace(course, candidate=candidate), facts
        if course.rules is not None and self._is_surplus(request, prompts, facts):
            facts = replace(facts, surplus=True)
        return course, facts

    def _is_surplus(self, request: Request, prompts: Prompts, facts: RequestFacts) -> bool:
        """Whether the student answers because the autoscaler prefers that to one more replica. An
        adapter's answers are its own, and lines of a batch wait instead."""
        fallback = self._fallbacks[request.body.model]
        surplus = fallback.surplus
        if surplus is None or request.adapter is not None or request.batch is not None:
            return False
        policy = fallback.policy
        if policy.at_arrival(facts) is not None or not policy.allows(CAPACITY, facts):
            return False
        return surplus.takes(request.priority_class, prompts.choices)

    async def _own(
        self, record: Record, request: Request, prompts: Prompts
    ) -> tuple[Course, RequestFacts]:
        """The same without a candidate."""
        body, enrichment = request.body, request.enrichment
        fallback = self._fallbacks.get(body.model)
        tenant = request.tenant
        facts = RequestFacts(tenant.id, request.priority_class, wishes=tenant.fallback)
        if fallback is None or not isinstance(body, TextBody) or not prompts.choices:
            return Course(body.model, bare=_may_be_bare(request)), facts
        dear = 0.0
        if fallback.policy.cost.has_cap:
            dear = await self._worst_cost_usd(request, prompts)
        intent = request.header(INTENT_HEADER) or (body.metadata or {}).get("intent")
        long_tail = bool(enrichment and enrichment.long_tail)
        spent = record.tab is not None and record.tab.spills
        facts = replace(
            facts, long_tail=long_tail, intent=intent, worst_cost_usd=dear, over_budget=spent
        )
        course = fallback.course
        if request.adapter is not None:
            course = replace(course, cascade=None, bare=_may_be_bare(request))
        return course, facts

    async def _worst_cost_usd(self, request: Request, prompts: Prompts) -> float:
        """All prompts uncached, and all output that the choices may have."""
        model = self._models[request.body.model]
        tokens = [len(ids) for ids in await prompts.of(model)]
        asked = request.dialect.output_limit(request.body)
        output = sum(
            max(0, model.max_model_len - prompt) if asked is None else asked for prompt in tokens
        )
        output *= prompts.choices // len(tokens)
        price = self._prices.of(model.name, request.adapter)
        used, batch = Used(sum(tokens), 0, output), request.batch is not None
        return float(usd_of(price.most_nano_usd(used, request.priority_class, batch)))


def _may_be_bare(request: Request) -> bool:
    """Whether the model may answer without the adapter: by its setting, and for its tenants."""
    adapter = request.adapter
    if adapter is None or adapter.cold != "base":
        return False
    return request.caller.sees_model(adapter.model)
