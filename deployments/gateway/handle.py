"""The request path. :meth:`Gateway.handle` and :meth:`Generation._choice` are its table of
contents: authenticate, validate, enrich, then for each leg tokenize, reserve, admit, place and
stream, and at the end settle."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from deployments.client_headers import usable_id
from deployments.gateway.accounts import Account, Most
from deployments.gateway.adapters import Adapter, AdapterNames
from deployments.gateway.bodies import Body, TextBody
from deployments.gateway.booking import Booking, Ledger
from deployments.gateway.dialects import Dialect
from deployments.gateway.fallbacks import Fallback, Trial
from deployments.gateway.generation import Generation, Run
from deployments.gateway.holding import DoubtfulAnswerError, HeldAnswer
from deployments.gateway.http import ClientGoneError
from deployments.gateway.intake import Intake
from deployments.gateway.legs import Attempt, usage
from deployments.gateway.model import Model
from deployments.gateway.off_loop import OffLoop
from deployments.gateway.plan import (
    ADAPTER,
    CircuitOpenError,
    Course,
    Limits,
    Outcome,
    Step,
    next_step,
    verdict,
)
from deployments.gateway.pricing import PriceLists
from deployments.gateway.request import Door, Header, Request, patience_s
from deployments.gateway.settle import Record, Settlement
from deployments.gateway.silence import Silence
from deployments.gateway.sink import Answer, Sink
from deployments.gateway.tokenizing import Prompts, choices_of
from fallback.policies import COST, RequestFacts
from features.enrichment import Enrichment
from weir.cost import Used, usd_of
from weir.errors import (
    BadRequestError,
    InternalError,
    UnsupportedError,
    WeirError,
)
from weir.logs import request_logging, stack_of
from weir.metrics import GatewayMetrics
from weir.tenancy import Caller, LiveDirectory, Tenant, model_not_found

_LOG = logging.getLogger("weir.gateway")
PRIORITY_HEADER = "x-weir-priority"
INTENT_HEADER = b"x-weir-intent"
#: In it OpenAI's and Anthropic's libraries say after how many seconds without a byte they give up.
PATIENCE_HEADER = b"x-stainless-read-timeout"


def random_ids() -> Callable[[], str]:
    """Makes unique ids of 96 random bits. They are no secrets, so the system's source is asked for
    a seed only: asking it each time costs 9 µs."""
    rng = random.Random()
    return lambda: f"{rng.getrandbits(96):024x}"


class Enriching(Protocol):
    """Features that are being looked up."""

    async def finish(self) -> Enrichment[TextBody]:
        """The body that is tokenized; raises where features are required and cannot be had."""
        ...


class Enricher(Protocol):
    """Adds online features to the prompt."""

    def begin(self, tenant: Tenant, body: TextBody, header: Header) -> Enriching:
        """Start to look up; never raises, and what is begun need not be finished."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a gateway needs. ``classes``: the priority classes' names; ``slo_s``: the
    time-to-first-token limit of those that have one. ``ledger``: where what was used is kept.
    ``ids`` makes unique ids; ``wall_clock`` gives
    seconds since the epoch, for what clients are told. The event loop's clock is the only other."""

    directory: LiveDirectory
    models: Mapping[str, Model]
    account: Account
    enricher: Enricher
    classes: Sequence[str]
    metrics: GatewayMetrics
    limits: Limits
    off_loop: OffLoop
    fallbacks: Mapping[str, Fallback] = field(default_factory=dict)
    slo_s: Mapping[str, float] = field(default_factory=dict)
    adapters: AdapterNames = field(default_factory=lambda: AdapterNames(()))
    ledger: Ledger | None = None
    ids: Callable[[], str] = field(default_factory=random_ids)
    wall_clock: Callable[[], float] = time.time


class Gateway:
    """Answers requests, whatever happens."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.directory = parts.directory
        self.models = parts.models
        self.adapters = parts.adapters
        self.metrics = parts.metrics
        self._clock = asyncio.get_running_loop().time
        self._generation = Generation(parts.metrics, parts.limits, parts.ledger is not None)
        self.intake = Intake(parts.limits, parts.off_loop)
        self._silence = Silence(parts.limits.early_headers_s)
        self._prices = PriceLists(model.settings for model in parts.models.values())
        self._booking = Booking(
            parts.models,
            self._prices,
            parts.ledger,
            self._clock,
            parts.wall_clock,
            parts.slo_s,
        )
        self._settlement = Settlement(self._prices, parts.metrics, parts.slo_s)
        for model in parts.models.values():
            model.fleet.take_over = self._booking.take_over
        for name, fallback in parts.fallbacks.items():
            fallback.watch(parts.models[name].router, parts.metrics)

    def covers(self, model: str) -> bool:
        """Whether a model without replicas is answered for all the same."""
        fallback = self.parts.fallbacks.get(model)
        student = fallback.course.student if fallback else None
        return student is not None and bool(self.models[student].router.members)

    async def handle(self, dialect: Dialect, door: Door, sink: Sink) -> None:
        """Answer one request: of an HTTP client, or of a caller in this process.

        Which model answers is decided by rules over the outcomes so far
        (:func:`deployments.gateway.plan.next_step`), for as long as nothing has been shown.
        """
        serial = self.parts.ids()
        given = usable_id(door.header(b"x-request-id"))
        record = Record(dialect.name, self._clock(), given or serial, serial)
        async with self._answered(record, sink):
            caller = self._authenticate(record, dialect, door)
            request = await self._validate(record, dialect, caller, door)
            with self._in_flight(record, request, sink):
                request = await self._enrich(record, request)
                prompts = Prompts(request)
                course, facts = await self._course(record, request, prompts)
                outcomes: list[Outcome] = []
                while step := next_step(course, facts, outcomes, prompts.choices):
                    outcomes.append(await self._attempt(record, prompts, step, facts, sink))
                error = verdict(course, outcomes)
                if error is not None:
                    raise error

    @asynccontextmanager
    async def _answered(self, record: Record, sink: Sink) -> AsyncIterator[None]:
        """The request path's edge: every error becomes an answer, every end is settled."""
        try:
            yield
        except WeirError as error:
            await self._fail(record, sink, error)
        except (ClientGoneError, asyncio.CancelledError) as gone:
            record.client_left = True
            if isinstance(gone, asyncio.CancelledError):
                raise
        except Exception as error:  # noqa: BLE001 - the edge: count it, log it, answer it
            told = {"endpoint": record.endpoint, "request_id": record.id, "tenant": record.tenant}
            _LOG.error("request failed: %s", stack_of(error), extra=told)
            await self._fail(record, sink, InternalError("An internal error occurred."))
        finally:
            self._booking.end(record)
            self._settlement.settle(record, sink.status, self._clock())

    async def _fail(self, record: Record, sink: Sink, error: WeirError) -> None:
        record.error = error
        error.request_id = record.id
        self._booking.end(record)
        await sink.fail(error, record.headers())

    def _authenticate(self, record: Record, dialect: Dialect, door: Door) -> Caller:
        caller = door.authenticated
        if caller is None:
            given = door.header(b"authorization"), door.header(b"x-api-key")
            caller = self.directory.authenticate(*given)
        record.tenant, record.key = caller.tenant.id, caller.key.id
        caller.require_endpoint(dialect.name)
        record.tab = self.parts.account.open(caller.tenant, caller.key)
        return caller

    async def _validate(
        self, record: Record, dialect: Dialect, caller: Caller, door: Door
    ) -> Request:
        """The body, read and checked; the model and the class, found."""
        record.unknown = self.intake.unknown()
        tenant = caller.tenant
        body, body_bytes = await self.intake.body(dialect, tenant, door, record.unknown)
        model, adapter = self.find_model(body.model, caller)
        if adapter is not None:
            body = body.model_copy(update={"model": model.name})
        record.model = model.name
        suited = dialect.suited(model.tasks)
        if suited is None:
            raise UnsupportedError(
                f"The model {model.name!r} does not support {dialect.name}.", param="model"
            )
        record.request = Request(
            id=record.id,
            serial=record.serial,
            caller=caller,
            dialect=suited,
            body=body,
            priority_class=self._priority_class(door, tenant),
            header=door.header,
            arrival_s=record.arrival_s,
            body_bytes=body_bytes,
            deadline_s=self._deadline_s(record, body, door),
            adapter=adapter,
            batch=door.batch,
        )
        return record.request

    def find_model(self, name: str, caller: Caller) -> tuple[Model, Adapter | None]:
        """The model, and the adapter of it, that a request of the caller names.

        Raises:
            ModelNotFoundError: there is none for its tenant and key.
        """
        model = self.models.get(name)
        if model is not None:
            if not caller.sees_model(name):
                raise model_not_found(name)
            return model, None
        adapter = self.adapters.find(name, caller)
        if adapter is None:
            raise model_not_found(name)
        return self.models[adapter.model], adapter

    def _priority_class(self, door: Door, tenant: Tenant) -> str:
        allowed = tenant.classes or self.parts.classes
        asked = door.header(PRIORITY_HEADER.encode())
        if asked is None:
            return "standard" if not tenant.classes and "standard" in allowed else allowed[0]
        if asked not in allowed:
            raise BadRequestError(
                f"{PRIORITY_HEADER}: {asked[:40]!r} is not one of {', '.join(allowed)}.",
                param=PRIORITY_HEADER,
            )
        return asked

    def _deadline_s(self, record: Record, body: Body, door: Door) -> float | None:
        """When the client of a whole answer gives up. A stream keeps its client waiting."""
        patience = None if _streams(body) else patience_s(door.header(PATIENCE_HEADER))
        return None if patience is None else record.arrival_s + patience

    @contextmanager
    def _in_flight(self, record: Record, request: Request, sink: Sink) -> Iterator[None]:
        metrics = self.metrics
        gauge = metrics.of(metrics.in_flight, request.tenant.id, request.body.model)
        streams = _streams(request.body)
        if streams:
            self._silence.watch(sink, record.arrival_s, record.early_headers)
        try:
            with request_logging(request.id, request.tenant.id), gauge.track_inprogress():
                yield
        finally:
            if streams:
                self._silence.forget(sink)

    async def _enrich(self, record: Record, request: Request) -> Request:
        """Online features, within their budget of time."""
        if not isinstance(request.body, TextBody):
            return request
        enriching = self.parts.enricher.begin(request.tenant, request.body, request.header)
        enrichment = await enriching.finish()
        record.request = replace(request, body=enrichment.body, enrichment=enrichment)
        return record.request

    async def _course(
        self, record: Record, request: Request, prompts: Prompts
    ) -> tuple[Course, RequestFacts]:
        """Who may answer, and what the rules want to know."""
        body, enrichment = request.body, request.enrichment
        fallback = self.parts.fallbacks.get(body.model)
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
        model = self.models[request.body.model]
        tokens = [len(ids) for ids in await prompts.of(model)]
        asked = request.dialect.output_limit(request.body)
        output = sum(
            max(0, model.max_model_len - prompt) if asked is None else asked for prompt in tokens
        )
        output *= prompts.choices // len(tokens)
        price = self._prices.of(model.name, request.adapter)
        used, batch = Used(sum(tokens), 0, output), request.batch is not None
        return float(usd_of(price.most_nano_usd(used, request.priority_class, batch)))

    async def _attempt(
        self, record: Record, prompts: Prompts, step: Step, facts: RequestFacts, sink: Sink
    ) -> Outcome:
        """All choices by one model, and how it went.

        Raises:
            WeirError: something went wrong after the client was sent a part of the answer.
        """
        number, adapter = len(record.attempts), _adapter_of(record.request, step)
        attempt = Attempt(step, [], number=number, adapter=adapter)
        record.attempts.append(attempt)
        try:
            with self._trial(step, facts, attempt) as trial:
                await self._answer(record, prompts, attempt, trial, facts, sink)
        except DoubtfulAnswerError:
            attempt.doubtful = True
            return Outcome(step, admitted=True, doubtful=True)
        except WeirError as error:
            if sink.committed:
                raise
            if step.spill is not None:
                told = {"spill": step.spill, "reason": error.code}
                _LOG.info("the student cannot answer", extra=told)
            return Outcome(step, error, admitted=attempt.admitted_s is not None)
        finally:
            attempt.shown = sink.committed
        return Outcome(step)

    @contextmanager
    def _trial(self, step: Step, facts: RequestFacts, attempt: Attempt) -> Iterator[Trial | None]:
        """A watched attempt is a trial of the model's replicas.

        Raises:
            CircuitOpenError: they are not to be tried now.
        """
        if not step.watched:
            yield None
            return
        policy = self.parts.fallbacks[step.model].policy
        entered = policy.enter(facts, len(self.models[step.model].router.members))
        if entered is None:
            raise CircuitOpenError(f"The model {step.model!r} cannot answer now.")
        with Trial(policy, entered, attempt) as trial:
            yield trial

    async def _answer(
        self,
        record: Record,
        prompts: Prompts,
        attempt: Attempt,
        trial: Trial | None,
        facts: RequestFacts,
        sink: Sink,
    ) -> None:
        """Tokenize, then reserve, admit, place and stream each choice; commit with the first output
        that may be seen."""
        step, request = attempt.step, prompts.request
        model = self.models[step.model]
        tokens = await prompts.of(model)
        fallback = self.parts.fallbacks[step.model] if step.watched else None
        adapter = attempt.adapter
        keys = await prompts.keys_of(model, tokens, adapter.key if adapter else None)
        asked = facts if step.watched else None
        tab, limit = record.tab, None
        if tab is not None:
            limit = tab.most_output_tokens(model.name)
        attempt.choices += choices_of(request, model, tokens, keys, asked, adapter, limit)
        if step.hold_back is not None:
            for choice in attempt.choices:
                choice.score()
        answer = self._open(record, model, attempt, tokens, sink)
        patience_s = None
        if fallback is not None:
            patience_s = fallback.policy.patience_s(facts)
        if patience_s is not None:
            patience_s = max(0.0, patience_s - (self._clock() - request.arrival_s))
        run = Run(
            request,
            model,
            attempt,
            answer,
            lambda: sink.committed,
            fallback,
            trial,
            patience_s,
            tab,
            self._most(attempt, request, model, facts) if tab is not None else None,
        )
        if attempt.choices:
            await self._generation.generate(run)
        await answer.end(usage(record.attempts))

    def _most(self, attempt: Attempt, request: Request, model: Model, facts: RequestFacts) -> Most:
        """What an attempt may use; and whether the tenant's budget may send it to the student."""
        spills = attempt.step.watched
        if spills:
            spills = self.parts.fallbacks[model.name].policy.allows(COST, facts)
        return self._prices.most(request, attempt, model.max_model_len, spills)

    def _open(
        self,
        record: Record,
        model: Model,
        attempt: Attempt,
        tokens: list[list[int]],
        sink: Sink,
    ) -> Answer:
        request = record.request
        assert request is not None
        body = request.body
        name = attempt.adapter.id if attempt.adapter is not None else model.name
        if body.model != name:
            body = body.model_copy(update={"model": name})
        created_s = int(self.parts.wall_clock())
        writer = request.dialect.writer(body, request.id, created_s, tokens, model.encoder)
        streams, closing = _streams(body), partial(self._booking.close, record)
        answer = sink.begin(writer, len(attempt.choices), streams, record.headers, closing)
        if attempt.step.hold_back is not None:
            return HeldAnswer(answer, attempt.step.hold_back, attempt)
        return answer


def _adapter_of(request: Request | None, step: Step) -> Adapter | None:
    """The adapter with which a step's model answers."""
    if request is None or request.adapter is None or step.spill == ADAPTER:
        return None
    return request.adapter if step.model == request.adapter.model else None


def _may_be_bare(request: Request) -> bool:
    """Whether the model may answer without the adapter: by its setting, and for its tenants."""
    adapter = request.adapter
    if adapter is None or adapter.cold != "base":
        return False
    return request.caller.sees_model(adapter.model)


def _streams(body: Body) -> bool:
    """Whether the client asked for an event stream."""
    return bool(getattr(body, "stream", False))
