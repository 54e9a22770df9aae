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
from deployments.gateway.steps import Body, Charge, Enricher, Quota
from router.admission import Ticket
from router.ledger import Reservation
from router.types import RouteRequest
from weir.errors import BadRequestError, OverloadedError, UnsupportedError, WeirError
from weir.logs import request_logging
from weir.metrics import GatewayMetrics
from weir.settings import PriceSettings
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
    ) -> None:
        self.keys = keys
        self.models = models
        self.metrics = metrics
        self._quota = quota
        self._enricher = enricher
        self._classes = tuple(classes)
        self._relay = relay
        self._limits = limits

    async def serve(self, path: str, exchange: Exchange) -> None:
        """Answer one POST to one of :data:`PATHS`, whatever happens."""
        try:
            async with asyncio.timeout(self._limits.request_timeout_s):
                if path == "/v1/embeddings":
                    await self._embed(path, exchange)
                else:
                    await self._generate(path, exchange)
        except WeirError as error:
            await exchange.fail(error)
        except TimeoutError:
            limit = self._limits.request_timeout_s
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
                prompt = model.tokenize(body)
                request = self._route_request(exchange, tenant, model, body, prompt)
                async with model.gate.admit(request, exchange.body_bytes) as ticket:
                    self._admitted(exchange, ticket)
                    if body.needs_openai_app:
                        fields = {"priority": ticket.priority, "cache_salt": salt_of(tenant)}
                        await self._pass_on(path, exchange, model, ticket, body, fields)
                    else:
                        submit = submission(
                            ticket, exchange.request_id, prompt, salt_of(tenant), body
                        )
                        await self._fly(exchange, model, ticket, submit, body)
            finally:
                await self._settle(exchange, model, charge)

    async def _validate(
        self, path: str, exchange: Exchange, tenant: Tenant
    ) -> tuple[Body, ServedModel]:
        exchange.tenant = tenant.id
        raw = await http.read_json_body(
            exchange.scope, exchange.receive, self._limits.max_body_bytes
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

    def _route_request(
        self,
        exchange: Exchange,
        tenant: Tenant,
        model: ServedModel,
        body: Body,
        prompt: list[int],
    ) -> RouteRequest:
        field = "messages" if isinstance(body, ChatBody) else "prompt"
        limit = model.output_limit(len(prompt), body.max_output_tokens, field)
        return RouteRequest(
            request_id=exchange.serial,
            model=model.name,
            tenant=tenant.id,
            prompt_tokens=len(prompt),
            max_output_tokens=limit,
            expected_output_tokens=expected_output_tokens(limit),
            priority_class=self._priority_class(exchange, tenant),
            block_hashes=model.hasher.keys(prompt, salt_of(tenant)),
            arrival_s=exchange.started_s,
        )

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

    def _admitted(self, exchange: Exchange, ticket: Ticket[Reservation]) -> None:
        request, decision = ticket.request, ticket.grant.decision
        labels = (exchange.tenant, request.model)
        self.metrics.admission_wait.labels(*labels, request.priority_class).observe(ticket.waited_s)
        if decision.overlap_blocks:
            block = self.models[request.model].block_size
            self.metrics.predicted_cached.labels(*labels).inc(decision.overlap_blocks * block)

    async def _fly(
        self,
        exchange: Exchange,
        model: ServedModel,
        ticket: Ticket[Reservation],
        submit: wire.Submit,
        body: Body,
    ) -> None:
        flight = Flight(model, ticket, exchange, self._limits.dispatch_attempts)
        try:
            first = await flight.take_off(submit, self.metrics)
            exchange.output_arrived()
            exchange.headers.append((b"x-weir-replica", flight.replica_id.encode()))
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
        exchange.headers.append((b"x-weir-replica", replica_id.encode()))
        await self._relay.relay(exchange, model.address(replica_id), path, body, engine_fields)

    async def _embed(self, path: str, exchange: Exchange) -> None:
        tenant = self.keys.authenticate(exchange.header(b"authorization"))
        exchange.tenant = tenant.id
        raw = await http.read_json_body(
            exchange.scope, exchange.receive, self._limits.max_body_bytes
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

    async def _settle(self, exchange: Exchange, model: ServedModel, charge: Charge) -> None:
        await charge.settle(exchange.counts)
        labels = (exchange.tenant, model.name)
        counts = exchange.counts
        self.metrics.prompt_tokens.labels(*labels).inc(counts.prompt_tokens)
        self.metrics.cached_tokens.labels(*labels).inc(counts.cached_tokens)
        self.metrics.output_tokens.labels(*labels).inc(counts.output_tokens)
        cost = cost_usd(
            model.settings.price, counts.prompt_tokens, counts.cached_tokens, counts.output_tokens
        )
        self.metrics.cost.labels(*labels).inc(cost)

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
