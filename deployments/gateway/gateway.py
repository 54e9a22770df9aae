"""The request path, top to bottom: nine steps, in the order in which they happen."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deployments import wire
from deployments.gateway import http
from deployments.gateway.exchange import Exchange
from deployments.gateway.flight import Flight, answer_for, submission
from deployments.gateway.models import ServedModel, expected_output_tokens
from deployments.gateway.prefixes import salt_of
from deployments.gateway.relay import OpenAIRelay
from deployments.gateway.requests import ChatBody, CompletionBody, EmbeddingBody, parse_body
from deployments.gateway.spill import Admit, Call, Spills, admit_at_once
from deployments.gateway.steps import Body, Charge, Enricher, Quota
from router.admission import Ticket
from router.ledger import Reservation
from router.types import RouteRequest
from weir.errors import BadRequestError, OverloadedError, UnsupportedError, WeirError
from weir.logs import request_logging
from weir.metrics import GatewayMetrics
from weir.settings import PriceSettings, TenantSettings
from weir.tenancy import KeyRing, Tenant, model_not_found

_LOG = logging.getLogger("weir.gateway")

PRIORITY_HEADER = "x-weir-priority"
EndpointName = Literal["chat", "completions", "embeddings"]
PATHS: dict[str, EndpointName] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
}
_BODIES: dict[str, type[ChatBody] | type[CompletionBody]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": CompletionBody,
}


class InternalError(WeirError):
    """A fault of weir's own; the log has the rest."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost."""

    max_body_bytes: int
    dispatch_attempts: int
    request_timeout_s: float


class Gateway:
    """Everything that a request needs, injected."""

    def __init__(
        self,
        *,
        keys: KeyRing,
        models: Mapping[str, ServedModel],
        quota: Quota,
        enricher: Enricher,
        classes: Sequence[str],
        relay: OpenAIRelay,
        metrics: GatewayMetrics,
        limits: Limits,
        tenants: Sequence[TenantSettings] = (),
        slo_s: Mapping[str, float] | None = None,
    ) -> None:
        self.keys = keys
        self.models = models
        self.metrics = metrics
        self.limits = limits
        self._quota = quota
        self._enricher = enricher
        self._classes = tuple(classes)
        self._relay = relay
        self.spills = Spills(models, tenants, slo_s or {}, self)

    async def serve(self, path: str, exchange: Exchange) -> None:
        """Answer one POST to one of :data:`PATHS`, whatever happens."""
        try:
            async with asyncio.timeout(self.limits.request_timeout_s):
                if path == "/v1/embeddings":
                    await self._embed(path, exchange)
                else:
                    await self._generate(path, exchange)
        except WeirError as error:
            await exchange.fail(error)
        except TimeoutError:
            limit = self.limits.request_timeout_s
            await exchange.fail(OverloadedError(f"The request took longer than {limit:g} s."))
        except (http.ClientGoneError, asyncio.CancelledError) as gone:
            exchange.error_code = "client_gone"
            if isinstance(gone, asyncio.CancelledError):
                raise
        except Exception:  # noqa: BLE001 - the edge: count it, log it, answer it
            _LOG.exception("request failed", extra={"request_id": exchange.request_id})
            await exchange.fail(InternalError("An internal error occurred.", param=None))
        finally:
            self._record(path, exchange)

    async def _generate(self, path: str, exchange: Exchange) -> None:
        tenant = self.keys.authenticate(exchange.header(b"authorization"))
        body, model = await self._validate(path, exchange, tenant)
        enriching = self._enricher.begin(tenant, body, exchange.header)
        charge = await self._quota.reserve(tenant, body)
        in_flight = self.metrics.in_flight.labels(tenant.id, model.name)
        with request_logging(exchange.request_id, tenant.id), in_flight.track_inprogress():
            try:
                enrichment = await enriching.finish()
                exchange.enriched(enrichment)
                body = enrichment.body
                priority_class = self._priority_class(exchange, tenant)
                call = Call(path, exchange, tenant, body, priority_class)
                await self.spills.answer(call, model)
            finally:
                await self._settle(exchange, charge)

    async def _validate(
        self, path: str, exchange: Exchange, tenant: Tenant
    ) -> tuple[Body, ServedModel]:
        exchange.tenant = tenant.id
        raw = await http.read_json_body(
            exchange.scope, exchange.receive, self.limits.max_body_bytes
        )
        exchange.body_bytes = len(raw)
        body = parse_body(_BODIES[path], raw)
        model = self._find_model(body.model, tenant)
        exchange.model = model.name
        return body, model

    def _find_model(self, name: str, tenant: Tenant) -> ServedModel:
        model = self.models.get(name)
        if model is None:
            raise model_not_found(name)
        tenant.require_model(name)
        return model

    async def attempt(self, call: Call, model: ServedModel, admit: Admit = admit_at_once) -> None:
        """Steps 5 to 8 with one model: tokenize, admit, route, stream."""
        exchange, body = call.exchange, call.body
        request, prompt = self.route_request(call, model)
        async with admit(model.gate.admit(request, exchange.body_bytes)) as ticket:
            self.admitted(exchange, model, ticket)
            salt = salt_of(call.tenant)
            if body.needs_openai_app:
                fields = {"priority": ticket.priority, "cache_salt": salt}
                await self._pass_on(call.path, exchange, model, ticket, body, fields)
            else:
                submit = submission(ticket, exchange.request_id, prompt, salt, body)
                await self._fly(exchange, model, ticket, submit, body)

    def route_request(self, call: Call, model: ServedModel) -> tuple[RouteRequest, list[int]]:
        """What admission and routing are told, and the prompt's token ids.

        Raises:
            WeirError: the model cannot take such a request, or has no replica.
        """
        prompt = call.prompt(model)
        field = "messages" if isinstance(call.body, ChatBody) else "prompt"
        limit = model.output_limit(len(prompt), call.body.max_output_tokens, field)
        request = RouteRequest(
            request_id=call.exchange.serial,
            model=model.name,
            tenant=call.tenant.id,
            prompt_tokens=len(prompt),
            max_output_tokens=limit,
            expected_output_tokens=expected_output_tokens(limit),
            priority_class=call.priority_class,
            block_hashes=model.hasher.keys(prompt, salt_of(call.tenant)),
            arrival_s=call.exchange.started_s,
        )
        return request, prompt

    def _priority_class(self, exchange: Exchange, tenant: Tenant) -> str:
        allowed = tenant.classes or self._classes
        asked = exchange.header(PRIORITY_HEADER.encode())
        if asked is None:
            return "standard" if not tenant.classes and "standard" in allowed else allowed[0]
        if asked not in allowed:
            raise BadRequestError(
                f"{PRIORITY_HEADER}: {asked[:40]!r} is not one of {', '.join(allowed)}.",
                param=PRIORITY_HEADER,
            )
        return asked

    def admitted(self, exchange: Exchange, model: ServedModel, ticket: Ticket[Reservation]) -> None:
        """Step 6 is over: say which model answers, and count the wait."""
        exchange.admitted_s = time.monotonic()
        exchange.answered_by = model.name
        exchange.set_header(b"x-weir-model-answered", model.name)
        request, decision = ticket.request, ticket.grant.decision
        labels = (exchange.tenant, request.model)
        self.metrics.admission_wait.labels(*labels, request.priority_class).observe(ticket.waited_s)
        if decision.overlap_blocks:
            block = model.block_size
            self.metrics.predicted_cached.labels(*labels).inc(decision.overlap_blocks * block)

    async def _fly(
        self,
        exchange: Exchange,
        model: ServedModel,
        ticket: Ticket[Reservation],
        submit: wire.Submit,
        body: Body,
    ) -> None:
        flight = Flight(model, ticket, exchange, self.limits.dispatch_attempts)
        try:
            first = await flight.take_off(submit, self.metrics)
            exchange.output_arrived()
            exchange.set_header(b"x-weir-replica", flight.replica_id)
            answer = answer_for(body, exchange)
            if body.stream:
                usage = bool(body.stream_options and body.stream_options.include_usage)
                await flight.stream(first, answer, usage)
            else:
                await flight.collect(first, answer)
        finally:
            flight.land()

    async def _pass_on(
        self,
        path: str,
        exchange: Exchange,
        model: ServedModel,
        ticket: Ticket[Reservation],
        body: Body | EmbeddingBody,
        engine_fields: Mapping[str, Any],
    ) -> None:
        replica_id = ticket.grant.replica_id
        exchange.set_header(b"x-weir-replica", replica_id)
        await self._relay.relay(exchange, model.address(replica_id), path, body, engine_fields)

    async def _embed(self, path: str, exchange: Exchange) -> None:
        tenant = self.keys.authenticate(exchange.header(b"authorization"))
        exchange.tenant = tenant.id
        raw = await http.read_json_body(
            exchange.scope, exchange.receive, self.limits.max_body_bytes
        )
        body = parse_body(EmbeddingBody, raw)
        model = self._find_model(body.model, tenant)
        exchange.model = model.name
        if "embed" not in model.tasks:
            raise UnsupportedError(
                f"The model {model.name!r} generates text; it does not support embeddings.",
                param="model",
            )
        request = RouteRequest(
            exchange.serial,
            model.name,
            tenant.id,
            prompt_tokens=1,
            max_output_tokens=0,
            expected_output_tokens=0,
            priority_class=self._priority_class(exchange, tenant),
            arrival_s=exchange.started_s,
        )
        async with model.gate.admit(request, len(raw)) as ticket:
            await self._pass_on(path, exchange, model, ticket, body, {})

    async def _settle(self, exchange: Exchange, charge: Charge) -> None:
        await charge.settle(exchange.usage)
        total_usd = 0.0
        answered = (exchange.answered_by or exchange.model, exchange.counts)
        for name, counts in (answered, *exchange.discarded):
            labels = (exchange.tenant, name)
            self.metrics.prompt_tokens.labels(*labels).inc(counts.prompt_tokens)
            self.metrics.cached_tokens.labels(*labels).inc(counts.cached_tokens)
            self.metrics.output_tokens.labels(*labels).inc(counts.output_tokens)
            price = self.models[name].settings.price
            usd = cost_usd(price, counts.prompt_tokens, counts.cached_tokens, counts.output_tokens)
            self.metrics.cost.labels(*labels).inc(usd)
            total_usd += usd
        self.spills.settled(exchange.model, exchange.tenant, total_usd)

    def _record(self, path: str, exchange: Exchange) -> None:
        now = time.monotonic()
        labels = (exchange.tenant, exchange.model)
        metrics = self.metrics
        status = str(exchange.status or 499)
        metrics.requests.labels(*labels, PATHS[path], status, exchange.error_code).inc()
        if exchange.error_code == "client_gone":
            metrics.cancelled.labels(*labels).inc()
        if exchange.error_code or exchange.first_output_s is None:
            return
        metrics.ttft.labels(*labels).observe(exchange.first_output_s - exchange.started_s)
        metrics.duration.labels(*labels).observe(now - exchange.started_s)
        metrics.prompt_size.labels(*labels).observe(exchange.counts.prompt_tokens)
        if exchange.counts.output_tokens > 1:
            seconds = now - exchange.first_output_s
            metrics.tpot.labels(*labels).observe(seconds / (exchange.counts.output_tokens - 1))


def cost_usd(price: PriceSettings, prompt: int, cached: int, output: int) -> float:
    """The bill of one request, in USD; cached prompt tokens may have a price of their own."""
    cached_price = price.cached_input_usd_per_million_tokens
    if cached_price is None:
        cached_price = price.input_usd_per_million_tokens
    return (
        (prompt - cached) * price.input_usd_per_million_tokens
        + cached * cached_price
        + output * price.output_usd_per_million_tokens
    ) / 1e6
