"""The request path's detours: to the student instead of the teacher, and back.

:class:`Spills` stands between the steps before (validated, enriched) and those after (tokenize,
admit, route, stream), which it runs once or more: :meth:`Attempts.attempt` with one model each
time. While nothing has been sent to the client another attempt can follow; after the first byte
an error is the client's, as without a fallback.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from deployments.gateway.exchange import Exchange
from deployments.gateway.models import ServedModel
from deployments.gateway.spill_cascade import Cascade, Pilot
from deployments.gateway.spill_gate import Impatient, ImpatientError, SpillRule
from deployments.gateway.steps import Body
from fallback.policies import (
    CASCADE,
    COST,
    FAILURE,
    OVERLOAD,
    BreakerState,
    Kind,
    Pass,
    RequestFacts,
    SpillPolicy,
)
from router.admission import SpilledError
from router.admission.gate import Admission
from router.ledger import Reservation
from weir.errors import (
    NoReplicaError,
    OverloadedError,
    RateLimitError,
    ReplicaFailedError,
    WeirError,
)
from weir.metrics import GatewayMetrics
from weir.settings import TenantSettings
from weir.settings.fallback import FallbackSettings
from weir.tenancy import Tenant

_LOG = logging.getLogger("weir.gateway")
INTENT_HEADER = b"x-weir-intent"
SPILL_HEADER = b"x-weir-spill"
_WATCH_PERIOD_S = 0.1
_STATES = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}

Admit = Callable[[Admission], Admission]


def admit_at_once(admission: Admission[Reservation]) -> Admission[Reservation]:
    """However long the gate takes."""
    return admission


@dataclass(slots=True)
class Call:
    """One request, ready to be answered by any model."""

    path: str
    exchange: Exchange
    tenant: Tenant
    body: Body
    priority_class: str
    _prompts: dict[str, list[int]] = field(default_factory=dict)

    def prompt(self, model: ServedModel) -> list[int]:
        """The prompt's token ids; made once for all models with the same tokenizer."""
        key = model.encoder.fingerprint
        if key not in self._prompts:
            self._prompts[key] = model.tokenize(self.body)
        return self._prompts[key]

    def addressed_to(self, model: ServedModel) -> Call:
        """The same request with another model's name in it."""
        body = self.body.model_copy(update={"model": model.name})
        return Call(self.path, self.exchange, self.tenant, body, self.priority_class, self._prompts)


class Attempts(Pilot, Protocol):
    """The steps after: what the gateway lends."""

    metrics: GatewayMetrics

    async def attempt(self, call: Call, model: ServedModel, admit: Admit = ...) -> None:
        """Answer with this model, or raise; ``exchange.begun`` tells whether anything was sent."""
        ...


class Spills:
    """All models' fallbacks. ``slo_s``: time-to-first-token limit per priority class."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        tenants: Sequence[TenantSettings],
        slo_s: Mapping[str, float],
        attempts: Attempts,
    ) -> None:
        self._attempts = attempts
        self._fallbacks = {
            name: Fallback(fallback, model, models[fallback.student], tenants, slo_s, attempts)
            for name, model in models.items()
            if (fallback := model.settings.fallback) is not None
        }

    async def answer(self, call: Call, model: ServedModel) -> None:
        """Answer the call with ``model``, or with its student where the policies say so."""
        fallback = self._fallbacks.get(model.name)
        if fallback is None:
            await self._attempts.attempt(call, model)
        else:
            await fallback.answer(call)

    def settled(self, model: str, tenant: str, usd: float) -> None:
        """A request to ``model`` has cost so much."""
        fallback = self._fallbacks.get(model)
        if fallback is not None:
            fallback.policy.cost.budgets.spend(tenant, usd)

    def covers(self, model: str) -> bool:
        """Whether a model without replicas is answered for all the same."""
        fallback = self._fallbacks.get(model)
        return fallback is not None and bool(fallback.student.router.members)

    def watchers(self) -> list[Coroutine[Any, Any, None]]:
        """Loops to run for as long as the gateway does."""
        return [fallback.watch() for fallback in self._fallbacks.values()]


class Fallback:
    """One model (the teacher) and its student."""

    def __init__(
        self,
        settings: FallbackSettings,
        teacher: ServedModel,
        student: ServedModel,
        tenants: Iterable[TenantSettings],
        slo_s: Mapping[str, float],
        attempts: Attempts,
    ) -> None:
        self.teacher = teacher
        self.student = student
        self._attempts = attempts
        self._impatient = Impatient()
        self.policy = SpillPolicy(
            settings, tenants, slo_s, time.monotonic, self._impatient.hurry_all
        )
        self._rule = SpillRule(self.policy)
        teacher.spill_by(self._rule)
        self._had_replicas = False
        self._cascade = Cascade.of(settings.cascade, student)
        circuit = attempts.metrics.circuit.labels(teacher.name)
        circuit.set_function(lambda: _STATES[self.policy.breaker.state])

    async def answer(self, call: Call) -> None:
        """The order of the reasons is :mod:`fallback.policies.spill`'s."""
        facts = self._facts(call)
        kind = self.policy.at_arrival(facts)
        if kind is not None:
            if await self._by_student(call, facts, kind):
                return
            if kind == COST:
                raise RateLimitError(
                    f"This is beyond what you may spend on {self.teacher.name!r}, and its "
                    f"student {self.student.name!r} cannot answer now.",
                    retry_after_s=5.0,
                )
        elif await self._by_cascade(call, facts):
            return
        await self._by_teacher(call, facts)

    async def watch(self) -> None:
        """Notice at once when the last replica goes, and when one comes."""
        known: set[str] = set()
        while True:
            members = {info.replica_id for info in self.teacher.router.members}
            if self._had_replicas and not members:
                self._had_replicas = False
                self.policy.breaker.trip()
            elif members - known:
                self._had_replicas = True
                self.policy.breaker.retry_now()
            known = members
            await asyncio.sleep(_WATCH_PERIOD_S)

    def _facts(self, call: Call) -> RequestFacts:
        exchange, body = call.exchange, call.body
        enrichment = exchange.enrichment
        intent = exchange.header(INTENT_HEADER) or (body.metadata or {}).get("intent")
        return RequestFacts(
            tenant=call.tenant.id,
            priority_class=call.priority_class,
            long_tail=bool(enrichment and enrichment.long_tail),
            intent=intent,
            worst_cost_usd=self._worst_cost_usd(call) if self.policy.cost.has_cap else 0.0,
        )

    def _worst_cost_usd(self, call: Call) -> float:
        prompt, price = len(call.prompt(self.teacher)), self.teacher.settings.price
        room = max(0, self.teacher.max_model_len - prompt)
        output = call.body.max_output_tokens or room
        million_usd = (
            prompt * price.input_usd_per_million_tokens
            + output * price.output_usd_per_million_tokens
        )
        return million_usd / 1e6

    async def _by_student(self, call: Call, facts: RequestFacts, kind: Kind) -> bool:
        """Whether the student answered; False: it cannot, and nothing was sent."""
        exchange, metrics = call.exchange, self._attempts.metrics
        held = list(exchange.headers)
        exchange.start_over()
        exchange.set_header(SPILL_HEADER, kind)
        try:
            await self._attempts.attempt(call.addressed_to(self.student), self.student)
        except WeirError as error:
            if exchange.begun:
                raise
            metrics.spill_failures.labels(self.teacher.name, kind).inc()
            reason = {"request_id": exchange.request_id, "spill": kind, "reason": error.message}
            _LOG.info("the student cannot answer", extra=reason)
            exchange.headers[:] = held
            exchange.start_over()
            return False
        finally:
            if exchange.begun:
                metrics.spills.labels(facts.tenant, self.teacher.name, kind).inc()
        return True

    async def _by_cascade(self, call: Call, facts: RequestFacts) -> bool:
        if self._cascade is None or call.body.needs_openai_app:
            return False
        if not self.policy.allows(CASCADE, facts):
            return False
        kept = await self._cascade.answer(call.addressed_to(self.student), self._attempts)
        if kept is not None:
            verdict = "kept" if kept else "escalated"
            self._attempts.metrics.cascades.labels(self.teacher.name, verdict).inc()
        return bool(kept)

    async def _by_teacher(self, call: Call, facts: RequestFacts) -> None:
        replicas = len(self.teacher.router.members)
        self._had_replicas = self._had_replicas or replicas > 0
        entered = self.policy.enter(facts, replicas)
        if entered is None:
            if await self._by_student(call, facts, FAILURE):
                return
            # Nobody else is left: what the teacher says is the answer, whatever it is.
            await self._attempts.attempt(call, self.teacher)
            return
        held = list(call.exchange.headers)
        try:
            await self._watched(call, facts, entered)
        except (OverloadedError, ReplicaFailedError) as error:
            exchange = call.exchange
            if exchange.begun:
                raise
            kind = self._kind_of(error, exchange)
            exchange.headers[:] = held
            if self.policy.allows(kind, facts) and await self._by_student(call, facts, kind):
                return
            if not isinstance(error, SpilledError | ImpatientError):
                raise
            # It left the queue for the student only: back, and this time to the end.
            exchange.start_over()
            await self._attempts.attempt(call, self.teacher)

    def _kind_of(self, error: WeirError, exchange: Exchange) -> Kind:
        if isinstance(error, NoReplicaError | ReplicaFailedError):
            return FAILURE
        if isinstance(error, ImpatientError):
            return FAILURE if self.policy.is_broken else OVERLOAD
        # Refused at the gate, or by a replica whose engine is down.
        return OVERLOAD if exchange.admitted_s is None else FAILURE

    async def _watched(self, call: Call, facts: RequestFacts, entered: Pass) -> None:
        exchange = call.exchange
        trial = _Trial(self.policy, entered, exchange)
        exchange.start_over()
        exchange.on_first_output = trial.first_output
        patience_s = self.policy.patience_s(facts)
        waited_s = time.monotonic() - exchange.started_s
        left_s = None if patience_s is None else max(0.0, patience_s - waited_s)

        def admit(admission: Admission[Reservation]) -> Admission[Reservation]:
            return self._impatient.around(admission, left_s)

        with self._rule.asked_about(exchange.serial, facts), trial:
            await self._attempts.attempt(call, self.teacher, admit)


class _Trial(contextlib.AbstractContextManager[None]):
    """One request's verdict on the pool, for the circuit breaker."""

    def __init__(self, policy: SpillPolicy, entered: Pass, exchange: Exchange) -> None:
        self._policy = policy
        self._entered = entered
        self._exchange = exchange
        self._answered = False

    def first_output(self, at_s: float) -> None:
        """The pool works."""
        self._answered = True
        self._policy.breaker.succeeded(self._entered)
        if self._exchange.admitted_s is not None:
            self._policy.overload.observe_first_token(at_s - self._exchange.admitted_s)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        broke = isinstance(error, ReplicaFailedError | NoReplicaError) or (
            isinstance(error, OverloadedError)
            and not isinstance(error, SpilledError | ImpatientError)
            and self._exchange.admitted_s is not None
        )
        if broke:
            self._policy.breaker.failed(self._entered)
        elif not self._answered:
            self._policy.breaker.cancelled(self._entered)
