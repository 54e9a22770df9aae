"""The student answers first; what it is not sure of, the teacher answers. Nothing is sent before
that is decided."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deployments import wire
from deployments.gateway.exchange import Exchange
from deployments.gateway.flight import Flight, answer_for, submission
from deployments.gateway.models import ServedModel
from deployments.gateway.prefixes import salt_of
from deployments.gateway.replicas import Output, logprobs_of
from fallback.cascade import CascadeRule, Verdict, Watch
from router.admission import Ticket
from router.ledger import Reservation
from router.types import RouteRequest
from weir.errors import ConfigError, WeirError
from weir.metrics import GatewayMetrics
from weir.registry import read_manifest
from weir.settings.fallback import CascadeSettings

if TYPE_CHECKING:
    from deployments.gateway.gateway import Limits
    from deployments.gateway.spill import Call

CASCADE_HEADER = b"x-weir-cascade"


class Pilot(Protocol):
    """What the gateway lends for an attempt that the cascade flies itself."""

    metrics: GatewayMetrics
    limits: Limits

    def route_request(self, call: Call, model: ServedModel) -> tuple[RouteRequest, list[int]]: ...

    def admitted(
        self, exchange: Exchange, model: ServedModel, ticket: Ticket[Reservation]
    ) -> None: ...


class Cascade:
    """The student's half of a cascade."""

    def __init__(self, rule: CascadeRule, student: ServedModel) -> None:
        self._rule = rule
        self._student = student

    @classmethod
    def of(cls, settings: CascadeSettings, student: ServedModel) -> Cascade | None:
        """As settings and the student's manifest say; None if no tenant can have it.

        Raises:
            ConfigError: it is switched on, and neither says what an answer needs to stand.
        """
        rule = cascade_rule(settings, student.folder)
        if rule is None and settings.enabled:
            raise ConfigError(
                f"fallback[].cascade: {student.name}'s manifest has no confidence; "
                "set first_tokens and threshold"
            )
        return None if rule is None else cls(rule, student)

    async def answer(self, call: Call, pilot: Pilot) -> bool | None:
        """True: the student answered. False: it was not sure, and the teacher should. None: it
        could not take the request; the teacher should, too."""
        exchange = call.exchange
        exchange.start_over()
        held = list(exchange.headers)
        try:
            kept = await self._fly(call, pilot)
        except WeirError:
            if exchange.begun:
                raise
            exchange.headers[:] = held
            exchange.start_over()
            return None
        if not kept:
            told = [h for h in exchange.headers if h[0] in (b"x-weir-spill", CASCADE_HEADER)]
            exchange.headers[:] = [*held, *told]
            exchange.discard()
        return kept

    async def _fly(self, call: Call, pilot: Pilot) -> bool:
        exchange, body, student = call.exchange, call.body, self._student
        request, prompt = pilot.route_request(call, student)
        async with student.gate.admit(request, exchange.body_bytes) as ticket:
            pilot.admitted(exchange, student, ticket)
            salt = salt_of(call.tenant)
            submit = submission(ticket, exchange.request_id, prompt, salt, body, logprobs=True)
            flight = Flight(student, ticket, exchange, pilot.limits.dispatch_attempts)
            try:
                watch = Watch(self._rule)
                outputs, verdict = await _hold_back(flight, submit, watch, pilot.metrics)
                _tell(exchange, watch, self._rule, verdict)
                if verdict is Verdict.ESCALATE:
                    return False
                exchange.output_arrived()
                exchange.set_header(b"x-weir-replica", flight.replica_id)
                answer, first = answer_for(body, exchange), _joined(outputs)
                if body.stream:
                    usage = bool(body.stream_options and body.stream_options.include_usage)
                    await flight.stream(first, answer, usage)
                else:
                    await flight.collect(first, answer)
                return True
            finally:
                flight.land()


async def _hold_back(
    flight: Flight, submit: wire.Submit, watch: Watch, metrics: GatewayMetrics
) -> tuple[list[Output], Verdict]:
    outputs = [await flight.take_off(submit, metrics)]
    while True:
        last = outputs[-1]
        verdict = watch.add(logprobs_of(last), isinstance(last, wire.Done))
        if verdict is not Verdict.HOLD:
            return outputs, verdict
        outputs.append(await flight.next())


def _joined(outputs: list[Output]) -> Output:
    last = outputs[-1]
    last.text = "".join(output.text for output in outputs)
    return last


def _tell(exchange: Exchange, watch: Watch, rule: CascadeRule, verdict: Verdict) -> None:
    kept = verdict is Verdict.KEEP
    exchange.set_header(b"x-weir-spill", "cascade-kept" if kept else "cascade-escalated")
    mean, counts = watch.mean_logprob, exchange.counts
    sure = "none" if mean is None else f"{mean:.3f}"
    told = f"mean_logprob={sure}; threshold={rule.threshold:g}"
    if not kept:
        told += (
            f"; also billed: {exchange.answered_by} prompt_tokens={counts.prompt_tokens} "
            f"output_tokens={counts.output_tokens}"
        )
    exchange.set_header(CASCADE_HEADER, told)


def cascade_rule(settings: CascadeSettings, student_folder: Path) -> CascadeRule | None:
    """What settings say, else the manifest; None if neither does."""
    manifest = read_manifest(student_folder)
    fitted = manifest.confidence if manifest else None
    tokens = settings.first_tokens or (fitted.first_tokens if fitted else None)
    threshold = settings.threshold
    if threshold is None and fitted:
        threshold = fitted.threshold
    return None if tokens is None or threshold is None else CascadeRule(tokens, threshold)
