"""The request path. :meth:`Gateway.handle` and :meth:`Generation._choice` are its table of
contents: authenticate, validate, enrich, then for each leg tokenize, reserve, admit, place and
stream, and at the end settle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from deployments.client_headers import usable_id
from deployments.gateway.adapters import Adapter
from deployments.gateway.attempts import Attempts
from deployments.gateway.bodies import Body, TextBody
from deployments.gateway.booking import Booking
from deployments.gateway.courses import Courses
from deployments.gateway.dialects import Dialect
from deployments.gateway.ends import Ends, Listener
from deployments.gateway.http import ClientGoneError
from deployments.gateway.intake import Intake
from deployments.gateway.model import Model
from deployments.gateway.parts import Parts
from deployments.gateway.plan import Outcome, final_error, next_step
from deployments.gateway.pricing import PriceLists
from deployments.gateway.recent import RecentRequests
from deployments.gateway.record import Record
from deployments.gateway.refusals import Refusals
from deployments.gateway.request import Door, Request, patience_s, streams
from deployments.gateway.rollouts import Rollouts
from deployments.gateway.settle import Settlement
from deployments.gateway.silence import Silence
from deployments.gateway.sink import Sink
from deployments.gateway.tokenizing import Prompts
from weir.errors import (
    BadRequestError,
    InternalError,
    UnsupportedError,
    WeirError,
    forget_frames,
)
from weir.logs import request_logging, stack_of
from weir.tenancy import Caller, Tenant, model_not_found

_LOG = logging.getLogger("weir.gateway")
PRIORITY_HEADER = "x-weir-priority"
#: In it OpenAI's and Anthropic's libraries say after how many seconds without a byte they give up.
PATIENCE_HEADER = b"x-stainless-read-timeout"


class Gateway:
    """Answers requests, whatever happens."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.directory = parts.directory
        self.models = parts.models
        self.adapters = parts.adapters
        self.metrics = parts.metrics
        self._clock = asyncio.get_running_loop().time
        self.intake = Intake(parts.limits, parts.off_loop)
        self._silence = Silence(parts.limits.early_headers_s)
        self.refusals = Refusals(parts.limits.refusals)
        prices = PriceLists(model.settings for model in parts.models.values())
        self.rollouts = Rollouts(
            parts.directory, parts.models, self._clock, parts.rng, parts.lazy_class
        )
        self._courses = Courses(parts.models, parts.fallbacks, prices, self.rollouts)
        self.recent = RecentRequests(self._clock, parts.wall_clock)
        booking = Booking(parts.models, prices, parts.ledger, self._clock, parts.wall_clock)
        self.ends = Ends(parts.slo, prices, booking, self._clock, self._listeners())
        self._attempts = Attempts(parts, prices, self.ends)
        for model in parts.models.values():
            model.fleet.take_over = booking.take_over
        for name, fallback in parts.fallbacks.items():
            fallback.watch(parts.models[name].router, parts.metrics)

    def _listeners(self) -> Iterator[Listener]:
        """Who hears of the end of each request. Traces come first, as metrics lead to those that
        are kept, and last, as they take longest."""
        parts = self.parts
        if parts.tracer is not None:
            yield parts.tracer.decide
        yield Settlement(parts.metrics, parts.fallbacks).settle
        if parts.answered is not None:
            yield parts.answered.count
        yield self.recent.add
        yield self.rollouts.hear
        if parts.tracer is not None:
            yield parts.tracer.end

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
        record = self._record(dialect, door)
        async with self._answered(record, door, sink):
            caller = self._authenticate(record, dialect, door)
            request = await self._validate(record, dialect, caller, door)
            with self._in_flight(record, request, sink):
                request = await self._enrich(record, request)
                prompts = Prompts(request)
                course, facts = await self._courses.of(record, request, prompts)
                outcomes: list[Outcome] = []
                while step := next_step(course, facts, outcomes, prompts.choices):
                    outcomes.append(await self._attempts.make(record, prompts, step, facts, sink))
                error = final_error(course, outcomes)
                if error is not None:
                    raise error

    def _record(self, dialect: Dialect, door: Door) -> Record:
        serial, tracer = self.parts.ids(), self.parts.tracer
        given = usable_id(door.header(b"x-request-id"))
        trace = tracer.begin(door.header) if tracer is not None else None
        return Record(dialect.name, self._clock(), given or serial, serial, trace=trace)

    @asynccontextmanager
    async def _answered(self, record: Record, door: Door, sink: Sink) -> AsyncIterator[None]:
        """The request path's edge: every error becomes an answer, every end is settled."""
        try:
            yield
        except WeirError as error:
            await self._fail(record, door, sink, error)
        except (ClientGoneError, asyncio.CancelledError) as gone:
            self.ends.leave(record)
            if isinstance(gone, asyncio.CancelledError):
                raise
        except Exception as error:  # noqa: BLE001 - the edge: count it, log it, answer it
            told = {"endpoint": record.endpoint, "request_id": record.id, "tenant": record.tenant}
            _LOG.error("request failed: %s", stack_of(error), extra=told)
            await self._fail(record, door, sink, InternalError("An internal error occurred."))
        finally:
            self.ends.tell(record, sink.status)

    async def _fail(self, record: Record, door: Door, sink: Sink, error: WeirError) -> None:
        forget_frames(error)
        error.request_id = record.id
        self.ends.fail(record, error, sink.status)
        if not sink.status:
            await self.refusals.pause(record, door, error)
        await sink.fail(error, record.headers())

    def _authenticate(self, record: Record, dialect: Dialect, door: Door) -> Caller:
        caller = door.authenticated
        if caller is None:
            given = door.header(b"authorization"), door.header(b"x-api-key")
            caller = self.directory.authenticate(*given)
        record.tenant, record.key = caller.tenant.id, caller.key.id
        caller.require_endpoint(dialect.name)
        record.tab = self.parts.account.open(caller.tenant, caller.key, door.later)
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
        record.validated_s = self._clock()
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
        patience = None if streams(body) else patience_s(door.header(PATIENCE_HEADER))
        return None if patience is None else record.arrival_s + patience

    @contextmanager
    def _in_flight(self, record: Record, request: Request, sink: Sink) -> Iterator[None]:
        metrics = self.metrics
        gauge = metrics.of(metrics.in_flight, request.tenant.id, request.body.model)
        streaming = streams(request.body)
        if streaming:
            self._silence.watch(sink, record.arrival_s, record.early_headers)
        try:
            trace_id = record.trace.trace_id if record.trace is not None else ""
            told = request_logging(request.id, request.tenant.id, trace_id)
            with told, gauge.track_inprogress():
                yield
        finally:
            if streaming:
                self._silence.forget(sink)

    async def _enrich(self, record: Record, request: Request) -> Request:
        """Online features, within their budget of time."""
        if not isinstance(request.body, TextBody):
            record.enriched_s = record.validated_s
            return request
        enriching = self.parts.enricher.begin(request.tenant, request.body, request.header)
        enrichment = await enriching.finish()
        record.request = replace(request, body=enrichment.body, enrichment=enrichment)
        record.enriched_s = self._clock()
        return record.request
