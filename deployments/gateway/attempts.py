"""One attempt: all choices of a request by one model, from its prompts to its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from deployments.gateway.accounts import Most
from deployments.gateway.adapters import Adapter
from deployments.gateway.ends import Ends
from deployments.gateway.fallbacks import Fallback, Trial
from deployments.gateway.generation import Generation, Run
from deployments.gateway.holding import DoubtfulAnswerError, HeldAnswer
from deployments.gateway.legs import Attempt, Choice, usage
from deployments.gateway.model import Model
from deployments.gateway.parts import Parts
from deployments.gateway.plan import ADAPTER, CircuitOpenError, Outcome, Step
from deployments.gateway.pricing import PriceLists
from deployments.gateway.record import Record
from deployments.gateway.request import Request, streams
from deployments.gateway.sink import Answer, Sink
from deployments.gateway.tokenizing import Prompts, choices_of
from deployments.gateway.tracing.content import ToldAnswer
from fallback.policies import CAPACITY, COST, RequestFacts
from weir.errors import WeirError, forget_frames

_LOG = logging.getLogger("weir.gateway")


class Attempts:
    """Needs a running event loop: its clock is the only one. ``ends`` is told when an answer is
    complete."""

    def __init__(self, parts: Parts, prices: PriceLists, ends: Ends) -> None:
        self._models = parts.models
        self._fallbacks = parts.fallbacks
        self._prices = prices
        self._ends = ends
        self._wall_clock = parts.wall_clock
        self._tracer = parts.tracer
        self._clock = asyncio.get_running_loop().time
        self._generation = Generation(parts.metrics, parts.limits, parts.ledger is not None)

    async def make(
        self, record: Record, prompts: Prompts, step: Step, facts: RequestFacts, sink: Sink
    ) -> Outcome:
        """All choices by one model, and how it went.

        Raises:
            WeirError: something went wrong after the client was sent a part of the answer.
        """
        adapter = _adapter_of(record.request, step)
        number = len(record.attempts)
        attempt = Attempt(step, [], number=number, adapter=adapter, begun_s=self._clock())
        record.attempts.append(attempt)
        try:
            with self._trial(step, facts, attempt) as trial:
                await self._answer(record, prompts, attempt, trial, facts, sink)
        except DoubtfulAnswerError:
            attempt.doubtful = True
            return Outcome(step, admitted=True, doubtful=True)
        except WeirError as error:
            attempt.error = error
            if sink.committed:
                raise
            forget_frames(error)
            if step.spill is not None:
                told = {"spill": step.spill, "reason": error.code}
                _LOG.info("the other model cannot answer", extra=told)
            if step.spill == CAPACITY:
                self._return_surplus(record, prompts)
            return Outcome(step, error, admitted=attempt.admitted_s is not None)
        finally:
            attempt.ended_s, attempt.shown = self._clock(), sink.committed
        return Outcome(step)

    def _return_surplus(self, record: Record, prompts: Prompts) -> None:
        surplus = self._fallbacks[record.model].surplus
        if surplus is not None:
            surplus.returned(prompts.request.priority_class, prompts.choices)

    @contextmanager
    def _trial(self, step: Step, facts: RequestFacts, attempt: Attempt) -> Iterator[Trial | None]:
        """A watched attempt is a trial of the model's replicas.

        Raises:
            CircuitOpenError: they are not to be tried now.
        """
        if not step.watched:
            yield None
            return
        policy = self._fallbacks[step.model].policy
        entered = policy.enter(facts, len(self._models[step.model].router.members))
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
        request, model = prompts.request, self._models[attempt.step.model]
        if model.waking.sleeps:
            await _wake(model, request, held=not attempt.step.watched)
        tokens = await prompts.of(model)
        attempt.choices += await self._choices(record, prompts, attempt, tokens, facts)
        attempt.tokenized_s = self._clock()
        answer = self._open(record, model, attempt, tokens, sink)
        fallback = self._fallbacks[model.name] if attempt.step.watched else None
        tab = record.tab
        run = Run(
            request,
            model,
            attempt,
            answer,
            lambda: sink.committed,
            fallback,
            trial,
            self._patience_s(request, fallback, facts) if fallback is not None else None,
            tab,
            self._most(attempt, request, model, facts) if tab is not None else None,
            record.trace,
        )
        if attempt.choices:
            await self._generation.generate(run)
        await answer.end(usage(record.attempts))

    async def _choices(
        self,
        record: Record,
        prompts: Prompts,
        attempt: Attempt,
        tokens: list[list[int]],
        facts: RequestFacts,
    ) -> list[Choice]:
        """What is to be generated from the prompts' ``tokens``."""
        step, adapter = attempt.step, attempt.adapter
        model = self._models[step.model]
        keys = await prompts.keys_of(model, tokens, adapter.key if adapter else None)
        asked = facts if step.watched else None
        limit = record.tab.most_output_tokens(model.name) if record.tab is not None else None
        choices = choices_of(prompts.request, model, tokens, keys, asked, adapter, limit)
        if step.hold_back is not None:
            for choice in choices:
                choice.score()
        return choices

    def _patience_s(
        self, request: Request, fallback: Fallback, facts: RequestFacts
    ) -> float | None:
        """So long the request may wait at the gate, before it is the student's."""
        patience_s = fallback.policy.patience_s(facts)
        if patience_s is None:
            return None
        return max(0.0, patience_s - (self._clock() - request.arrival_s))

    def _most(self, attempt: Attempt, request: Request, model: Model, facts: RequestFacts) -> Most:
        """What an attempt may use; and whether the tenant's budget may send it to the student."""
        spills = attempt.step.watched
        if spills:
            spills = self._fallbacks[model.name].policy.allows(COST, facts)
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
        created_s = int(self._wall_clock())
        writer = request.dialect.writer(body, request.id, created_s, tokens, model.encoder)
        closing = partial(self._ends.complete, record)
        answer = sink.begin(writer, len(attempt.choices), streams(body), record.headers, closing)
        if self._tracer is not None and request.tenant.trace_content:
            most_chars = self._tracer.content_max_chars
            answer = ToldAnswer(answer, attempt, body, len(attempt.choices), most_chars)
        if attempt.step.hold_back is not None:
            return HeldAnswer(answer, attempt.step.hold_back, attempt)
        return answer


async def _wake(model: Model, request: Request, held: bool) -> None:
    """The model sleeps: who can be answered by nobody else waits for a replica."""
    if held:
        await model.waking.wait(request.priority_class, request.body_bytes)
    else:
        model.waking.asked(request.priority_class)


def _adapter_of(request: Request | None, step: Step) -> Adapter | None:
    """The adapter with which a step's model answers."""
    if request is None or request.adapter is None or step.spill == ADAPTER:
        return None
    return request.adapter if step.model == request.adapter.model else None
