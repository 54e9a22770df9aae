"""A request's spans, made of its record when it is over.

    POST /v1/chat/completions          the request
      receive                          authenticate, read and check the body
      features                         online features
      chat MODEL                       one attempt: all choices by one model
        tokenize                       render, tokenize, hash blocks
        reserve                        quotas and budget
        queue                          wait at the gate
        leg                            one placement and its token stream
          decide                       why that replica: every candidate's score
          prefill                      to the first output
          transfer                     KV blocks from the replica that computed the prompt
          decode                       to the last output

A request that moves has a second ``leg``; one that spills has a second attempt. The engine's own
span, ``llm_request``, is a child of the leg.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deployments import wire
from deployments.gateway.ending import Ending
from deployments.gateway.legs import Attempt, Choice, Leg
from deployments.gateway.plan import Loss
from deployments.gateway.record import Record
from deployments.gateway.tracing import names
from deployments.gateway.tracing.decisions import decision_attributes
from deployments.gateway.tracing.spans import Span, Value
from weir.errors import WeirError

#: Choices of an attempt whose legs are told; a request may have 2,048.
_MOST_CHOICES = 16
_Attributes = dict[str, Value]
#: The pool of a model's replica, empty where there are none.
PoolOf = Callable[[str, str], str]


def fold(record: Record, ending: Ending, now_s: float, pool_of: PoolOf) -> list[Span]:
    """The spans, the request's own first. ``now_s``: after the last was written."""
    return list(_Folding(record, ending, now_s, pool_of).spans())


class _Folding:
    def __init__(self, record: Record, ending: Ending, now_s: float, pool_of: PoolOf) -> None:
        assert record.trace is not None
        self._record = record
        self._ending = ending
        self._trace = record.trace
        self._now_s = now_s
        self._ids = record.trace.new_id
        self._pool_of = pool_of

    def spans(self) -> Iterator[Span]:
        record, root = self._record, self._trace.span_id
        yield self._root()
        received_s = record.validated_s or self._now_s
        yield Span("receive", self._ids(), root, record.arrival_s, received_s, "internal", {})
        if record.validated_s and self._has_features():
            yield self._features()
        for number, attempt in enumerate(record.attempts):
            yield from self._attempt(number, attempt)

    def _root(self) -> Span:
        record, trace = self._record, self._trace
        request = record.request
        route = request.dialect.path if request is not None else record.endpoint
        told: _Attributes = {
            names.HTTP_METHOD: "POST",
            names.HTTP_ROUTE: route,
            names.HTTP_STATUS: self._ending.status or 499,
            "weir.request_id": record.id,
            "weir.tenant": record.tenant,
            "weir.kept": trace.kept,
        }
        if request is not None:
            told["weir.priority_class"] = request.priority_class
            told["weir.body_bytes"] = request.body_bytes
            if request.batch is not None:
                told["weir.batch"] = request.batch
        return Span(
            f"POST {route}",
            trace.span_id,
            trace.parent_id,
            record.arrival_s,
            self._now_s,
            "server",
            told,
            self._ending.code,
        )

    def _has_features(self) -> bool:
        """Whether anything was to be looked up."""
        request, record = self._record.request, self._record
        enrichment = request.enrichment if request is not None else None
        return not record.enriched_s or (enrichment is not None and enrichment.asked_for)

    def _features(self) -> Span:
        record = self._record
        told: _Attributes = {}
        enrichment = record.request.enrichment if record.request is not None else None
        if enrichment is not None:
            told["weir.features.outcome"] = enrichment.outcome
            told["weir.features.long_tail"] = enrichment.long_tail
            if enrichment.reason:
                told["weir.features.reason"] = enrichment.reason
        ended_s = record.enriched_s or self._now_s
        error = "" if record.enriched_s else self._ending.code
        start_s = record.validated_s
        root = self._trace.span_id
        return Span("features", self._ids(), root, start_s, ended_s, "internal", told, error)

    def _attempt(self, number: int, attempt: Attempt) -> Iterator[Span]:
        record, model = self._record, attempt.step.model
        operation = names.OPERATIONS.get(record.endpoint, record.endpoint)
        own, ended_s = self._ids(), attempt.ended_s or self._now_s
        yield Span(
            f"{operation} {model}",
            own,
            self._trace.span_id,
            attempt.begun_s,
            ended_s,
            "client",
            self._told_of(number, attempt, operation),
            _code(attempt.error),
        )
        tokenized_s = attempt.tokenized_s or ended_s
        tokens: _Attributes = {"weir.prompts": len({c.prompt_number for c in attempt.choices})}
        yield Span("tokenize", self._ids(), own, attempt.begun_s, tokenized_s, "internal", tokens)
        reserved_s = attempt.reserved_s or tokenized_s
        if attempt.reserved_s:
            yield Span("reserve", self._ids(), own, tokenized_s, reserved_s, "internal", {})
        # Where the attempt began before it was reserved, it was in the queue meanwhile.
        waits_s = reserved_s if attempt.granted is None else tokenized_s
        for choice in attempt.choices[:_MOST_CHOICES]:
            yield from self._choice(attempt, choice, own, waits_s, ended_s)

    def _told_of(self, number: int, attempt: Attempt, operation: str) -> _Attributes:
        record, step = self._record, attempt.step
        answered = attempt.adapter.id if attempt.adapter is not None else step.model
        told: _Attributes = {
            names.OPERATION: operation,
            names.PROVIDER: "weir",
            names.REQUEST_MODEL: record.model or step.model,
            names.RESPONSE_MODEL: answered,
            names.CHOICE_COUNT: len(attempt.choices),
            "weir.attempt": number,
            "weir.shown": attempt.shown,
        }
        if step.spill is not None:
            told["weir.spill"] = step.spill
        if step.hold_back is not None:
            told["weir.cascade"] = attempt.doubt
        if attempt.choices:
            told |= _asked(attempt.choices[0].submit)
            told |= _used(attempt)
        if attempt.first_output_s is not None:
            told[names.FIRST_CHUNK_S] = attempt.first_output_s - record.arrival_s
        return told | attempt.content

    def _choice(
        self, attempt: Attempt, choice: Choice, parent: str, waits_s: float, ended_s: float
    ) -> Iterator[Span]:
        many = len(attempt.choices) > 1
        which: _Attributes = {"weir.choice": choice.index} if many else {}
        admitted_s = choice.admitted_s
        error = "" if admitted_s is not None else _code(attempt.error)
        until_s = ended_s if admitted_s is None else admitted_s
        told = {**which, "weir.priority_class": choice.route.priority_class}
        yield Span("queue", self._ids(), parent, waits_s, until_s, "internal", told, error)
        for number, leg in enumerate(choice.legs):
            last = number == len(choice.legs) - 1
            yield from self._leg(attempt, choice, number, leg, which, parent, last)

    def _leg(
        self,
        attempt: Attempt,
        choice: Choice,
        number: int,
        leg: Leg,
        which: _Attributes,
        parent: str,
        last: bool,
    ) -> Iterator[Span]:
        own = leg.span_id or self._ids()
        told: _Attributes = {**which, "weir.leg": number, "weir.replica": leg.replica_id}
        told["weir.output_tokens"] = len(leg.tokens)
        pool = self._pool_of(attempt.step.model, leg.replica_id)
        if pool:
            told["weir.pool"] = pool
        if leg.loss is not Loss.NONE:
            told["weir.loss"] = str(leg.loss)
        used = leg.stream.used if leg.stream is not None else None
        if used is not None and used.prefill_s >= 0:
            told["weir.engine.prefill_s"] = used.prefill_s
            told["weir.engine.decode_s"] = used.decode_s
        error = "" if leg.last is not None else _code(attempt.error) if last else "moved"
        ended_s = max(leg.ended_s, leg.begun_s)
        yield Span("leg", own, parent, leg.begun_s, ended_s, "client", told, error)
        yield self._decision(choice, leg, own)
        yield from self._stages(leg, own, ended_s)

    def _decision(self, choice: Choice, leg: Leg, parent: str) -> Span:
        told = decision_attributes(leg.reservation) if leg.reservation is not None else {}
        at_s = leg.begun_s
        return Span("decide", self._ids(), parent, at_s, at_s, "internal", told)

    def _stages(self, leg: Leg, parent: str, ended_s: float) -> Iterator[Span]:
        """What the leg's time was spent on."""
        start_s, first_s = leg.begun_s, leg.first_s or ended_s
        if leg.prefill_id:
            kept_s = leg.kept_s or first_s
            told: _Attributes = {"weir.replica": leg.prefill_id}
            used = leg.prefill_stream.used if leg.prefill_stream is not None else None
            if used is not None and used.prefill_s >= 0:
                told["weir.engine.prefill_s"] = used.prefill_s
            yield Span("prefill", self._ids(), parent, start_s, kept_s, "client", told)
            if not leg.kept_s:
                return
            yield Span("transfer", self._ids(), parent, kept_s, first_s, "internal", {})
        else:
            yield Span("prefill", self._ids(), parent, start_s, first_s, "internal", {})
        if leg.first_s:
            yield Span("decode", self._ids(), parent, first_s, ended_s, "internal", {})


def _code(error: WeirError | None) -> str:
    """The kind of an error. Its message may have been made of what a client sent."""
    return (error.code or error.type) if error is not None else ""


def _asked(submit: wire.Submit | wire.Embed) -> _Attributes:
    if not isinstance(submit, wire.Submit):
        return {}
    sampling = submit.sampling
    told: _Attributes = {names.MAX_TOKENS: sampling.max_tokens}
    if sampling.temperature is not None:
        told[names.TEMPERATURE] = sampling.temperature
    if sampling.top_p is not None:
        told[names.TOP_P] = sampling.top_p
    if sampling.top_k is not None:
        told[names.TOP_K] = sampling.top_k
    return told


def _used(attempt: Attempt) -> _Attributes:
    counts = attempt.counts
    told: _Attributes = {
        names.INPUT_TOKENS: counts.prompt_tokens,
        names.CACHED_TOKENS: counts.cached_tokens,
        names.OUTPUT_TOKENS: counts.output_tokens,
    }
    lasts = [c.legs[-1].last for c in attempt.choices[:_MOST_CHOICES] if c.legs]
    reasons = [last.finish_reason for last in lasts if isinstance(last, wire.Done)]
    if reasons:
        told[names.FINISH_REASONS] = reasons
    return told
