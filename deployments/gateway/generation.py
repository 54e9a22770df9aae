"""Generating an attempt's choices: each is reserved, admitted, placed and streamed, and goes on
elsewhere when its replica is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from deployments import wire
from deployments.gateway.accounts import Most, Tab
from deployments.gateway.connection import (
    ReplicaChangedError,
    ReplicaLeavingError,
    ReplicaLostError,
    ReplicaStuckError,
    TokenStream,
)
from deployments.gateway.fallbacks import Fallback, Trial
from deployments.gateway.handoff import Handoff, can_hand_off, compute_prompt
from deployments.gateway.legs import Attempt, Choice, Leg, leg_id
from deployments.gateway.model import Model
from deployments.gateway.outputs import Output
from deployments.gateway.plan import LegEnd, Limits, Loss, Next, after_legs, ends_in_vain
from deployments.gateway.request import Request
from deployments.gateway.reserving import reserved
from deployments.gateway.sink import Answer
from deployments.gateway.tracing.context import Trace
from router.admission.ticket import Ticket
from weir.errors import (
    GenerationTimeoutError,
    NoReplicaError,
    ReplicaFailedError,
    RequestFailedError,
)
from weir.metrics import GatewayMetrics

_LOG = logging.getLogger("weir.gateway")


@dataclass(frozen=True, slots=True)
class Run:
    """An attempt under way. ``committed``: whether the client has been sent anything.

    ``fallback``: the model's, where the attempt is watched and another may follow; ``trial`` then
    hears of its first output. ``patience_s``: so long it may wait at the gate (None: as long as the
    gate lets it). ``tab`` and ``most``: the request's account, where its tenant has quotas or a
    budget, and what the attempt may use. ``trace``: the request's.
    """

    request: Request
    model: Model
    attempt: Attempt
    answer: Answer
    committed: Callable[[], bool]
    fallback: Fallback | None = None
    trial: Trial | None = None
    patience_s: float | None = None
    tab: Tab | None = None
    most: Most | None = None
    trace: Trace | None = None


class Generation:
    """Needs a running event loop: its clock is the only one. ``books``: there is a ledger, which
    replicas have to keep their counts for."""

    def __init__(self, metrics: GatewayMetrics, limits: Limits, books: bool = False) -> None:
        self._books = books
        self._metrics = metrics
        self._limits = limits
        self._clock: Callable[[], float] = asyncio.get_running_loop().time

    async def generate(self, run: Run) -> None:
        """All choices of an attempt: reserved together, and generated side by side.

        Raises:
            WeirError: the first that went wrong; the other choices are then broken off.
        """
        if run.tab is None or run.most is None:
            await self._choices(run)
            return
        family = run.request.dialect.family
        async with reserved(run.attempt, run.tab, run.most, family, run.committed, self._clock):
            await self._choices(run)

    async def _choices(self, run: Run) -> None:
        choices = run.attempt.choices
        if len(choices) == 1:
            await self._choice(run, choices[0])
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._choice(run, choices[0]))
                if run.fallback is not None:
                    # The first one decides whether the request spills; the others follow it.
                    await run.attempt.admitted.wait()
                others = replace(run, fallback=None)
                for choice in choices[1:]:
                    group.create_task(self._choice(others, choice))
        except BaseExceptionGroup as errors:
            raise _first(errors) from None

    async def _choice(self, run: Run, choice: Choice) -> None:
        """The steps of one choice, in their order: admit, place, stream."""
        async with self._admit(run, choice) as ticket:
            self._admitted(run, choice, ticket)
            run.model.generating += 1
            try:
                async with asyncio.timeout(self._limits.request_timeout_s):
                    while True:
                        leg = choice.begin_leg(ticket.grant, self._clock())
                        try:
                            await self._stream(run, choice, leg, ticket)
                            ticket.close(complete=True)
                            run.model.moves.give_back(len(choice.legs) - 1)
                            return
                        except ReplicaFailedError as failure:
                            await self._place_again(run, choice, ticket, failure)
            except TimeoutError:
                limit_s = self._limits.request_timeout_s
                raise GenerationTimeoutError(
                    f"The answer was not complete after {limit_s:g} s."
                ) from None
            finally:
                run.model.generating -= 1

    def _admit(self, run: Run, choice: Choice) -> AbstractAsyncContextManager[Ticket]:
        admission = run.model.gate.admit(choice.route, run.request.body_bytes)
        if run.fallback is None:
            return admission
        return run.fallback.waiting(admission, run.patience_s)

    def _admitted(self, run: Run, choice: Choice, ticket: Ticket) -> None:
        """Admission is over, and the replica is chosen and reserved."""
        choice.admitted_s = self._clock()
        if run.attempt.admitted_s is None:
            run.attempt.admitted_s, run.attempt.waited_s = choice.admitted_s, ticket.waited_s
            run.attempt.admitted.set()
        route, decision = ticket.request, ticket.grant.decision
        metrics = self._metrics
        wait = metrics.of(metrics.admission_wait, route.model, route.priority_class)
        wait.observe(ticket.waited_s)
        if decision.overlap_blocks:
            cached = decision.overlap_blocks * run.model.block_size
            metrics.of(metrics.predicted_cached, route.tenant, route.model).inc(cached)

    async def _stream(self, run: Run, choice: Choice, leg: Leg, ticket: Ticket) -> None:
        """One leg, to the end of the choice.

        Raises:
            ReplicaFailedError: the choice is not at its end.
            WeirError: the request is at fault.
        """
        connection = await run.model.fleet.connection(leg.replica_id)
        origin = _origin(run, choice, leg) if self._books else None
        submission = msgspec.structs.replace(
            choice.submission(),
            priority=ticket.priority,
            origin=origin,
            trace=_traced(run.trace, leg),
        )
        handoff = None
        if ticket.grant.prefill is not None:
            handoff = await self._hand_off(run, leg, ticket, submission)
            submission = submission if handoff is None else handoff.request(submission)
        stream = leg.stream = connection.submit(submission)
        take = stream.next if handoff is None else partial(handoff.first_output, stream, leg)
        put, index = run.answer.put, choice.index
        try:
            while True:
                try:
                    output = await take()
                except ReplicaLeavingError as leaving:
                    if self._leaves(run, choice, leg, leaving):
                        raise
                    continue  # there is nowhere to go: the replica waits for its last streams
                if _is_aborted(output):
                    raise ReplicaStuckError("The replica stopped in the middle of the request.")
                tokens = choice.took(leg, output)
                if leg.started is None:
                    if run.attempt.granted is not None:
                        await run.attempt.granted.wait()
                    self._started(run, leg, stream, output)
                    if handoff is not None:
                        self._arrived(run, leg, ticket, handoff)
                        take = stream.next
                    ticket.progress(tokens, *_prompt_counts(leg))
                else:
                    ticket.progress(tokens)
                await put(index, output)
                if leg.last is not None:
                    return
        finally:
            stream.close()
            leg.ended_s = self._clock()

    def _leaves(self, run: Run, choice: Choice, leg: Leg, leaving: ReplicaLeavingError) -> bool:
        """Whether the choice goes on elsewhere, as it had better. From a replica that only changes
        its role it goes where nothing can come of it but that."""
        model = run.model
        if not isinstance(leaving, ReplicaChangedError):
            return model.fleet.others(leg.replica_id)
        ends = [*(each.end() for each in choice.legs[:-1]), leg.end(Loss.GONE)]
        following = after_legs(ends, self._limits.dispatch_attempts, self._limits.most_legs)
        return (
            following is Next.MOVE
            and model.moves.allows(self._clock(), model.generating)
            and model.fleet.answerers(_avoided(ends))
        )

    async def _hand_off(
        self, run: Run, leg: Leg, ticket: Ticket, submission: wire.Submit | wire.Embed
    ) -> Handoff | None:
        """Have the ticket's prefill replica compute the prompt. None: the answering replica does
        everything.

        Raises:
            WeirError: as :func:`compute_prompt`.
        """
        handoff = None
        assert ticket.grant.prefill is not None
        if isinstance(submission, wire.Submit) and can_hand_off(submission):
            leg.prefill_id = ticket.grant.prefill.replica_id
            try:
                pool = run.model.pool_of(leg.prefill_id)
                handoff = await compute_prompt(run.model.fleet, leg, submission, pool)
            except ReplicaFailedError:
                self._metrics.handoffs.labels(run.model.name, "prefill_failed").inc()
                raise
        if handoff is None:
            self._metrics.handoffs.labels(run.model.name, "whole").inc()
            ticket.transfer_failed()
        else:
            ticket.prefill_done()
        return handoff

    def _arrived(self, run: Run, leg: Leg, ticket: Ticket, handoff: Handoff) -> None:
        """The answering replica has the prompt, from the other one or by itself."""
        told = leg.started
        name, took_s = run.model.name, self._clock() - handoff.asked_s
        if told is None or not handoff.arrived(told.cached_tokens):
            ticket.transfer_failed()
            self._metrics.handoffs.labels(name, "recomputed").inc()
            return
        held = ticket.grant.decision.overlap_blocks * run.model.block_size
        ticket.transferred(max(0, handoff.kept.prompt_tokens - held), took_s)
        self._metrics.handoffs.labels(name, "taken").inc()
        self._metrics.handoff_seconds.labels(name).observe(took_s)

    def _started(self, run: Run, leg: Leg, stream: TokenStream, output: Output) -> None:
        """The first output of a leg is here."""
        leg.started = stream.started or _whole_start(output)
        leg.first_s = self._clock()
        if run.attempt.first_output_s is None:
            run.attempt.first_output_s = leg.first_s
            if run.trial is not None:
                run.trial.first_output(run.attempt.first_output_s)

    async def _place_again(
        self,
        run: Run,
        choice: Choice,
        ticket: Ticket,
        failure: ReplicaFailedError,
    ) -> None:
        """Another replica for a choice whose leg broke.

        Raises:
            RequestFailedError: it failed on one replica after the other.
            ReplicaFailedError: there is none in time, or too much moves already.
        """
        limits, model = self._limits, run.model
        choice.legs[-1].loss = _loss(failure)
        ends = [leg.end() for leg in choice.legs]
        following = after_legs(ends, limits.dispatch_attempts, limits.most_legs)
        if following is Next.OWN_FAULT:
            raise RequestFailedError(
                f"The request failed on one replica after the other; the last said: "
                f"{failure.message}"
            ) from failure
        if following is Next.GIVE_UP or not model.moves.spend(self._clock(), model.generating):
            raise failure
        avoided = _avoided(ends)
        alone = run.fallback is None or run.committed()
        waits = isinstance(failure, ReplicaLostError) and alone
        give_up_s = self._clock() + (limits.resume_wait_s if waits else 0.0)
        while True:
            changed = model.fleet.changed
            try:
                ticket.move({*avoided, *model.fleet.unreachable()}, len(choice.tokens))
                break
            except NoReplicaError:
                try:
                    async with asyncio.timeout_at(give_up_s):
                        await changed.wait()
                except TimeoutError:
                    raise failure from None
        self._moved(run, choice, failure)

    def _moved(self, run: Run, choice: Choice, failure: ReplicaFailedError) -> None:
        name, tokens = run.model.name, len(choice.tokens)
        if not tokens:
            self._metrics.retries.labels(name).inc()
        else:
            self._metrics.moves.labels(name, _reason(failure)).inc()
            recomputed = len(choice.submit.prompt) + tokens
            self._metrics.recomputed_tokens.labels(name).inc(recomputed)
        reason = failure.message
        _LOG.info("a stream goes on elsewhere", extra={"tokens": tokens, "reason": reason})


def _traced(trace: Trace | None, leg: Leg) -> str | None:
    """What the replica is told of the request's trace."""
    if trace is None or not trace.sampled:
        return None
    leg.span_id = trace.new_id()
    return trace.parent_of(leg.span_id)


def _origin(run: Run, choice: Choice, leg: Leg) -> wire.Origin:
    """What a replica keeps of a leg, for whoever books it if this gateway cannot."""
    request, attempt, model = run.request, run.attempt, run.model
    return wire.Origin(
        leg_id(request.serial, attempt.number, choice.index, len(choice.legs) - 1),
        request.id,
        request.tenant.id,
        request.caller.key.id,
        model.name,
        request.adapter.id if request.adapter is not None else request.body.model,
        attempt.adapter.id if attempt.adapter is not None else "",
        model.pool_of(leg.replica_id),
        leg.replica_id,
        request.priority_class,
        request.dialect.name,
        request.batch is not None,
    )


def _loss(failure: ReplicaFailedError) -> Loss:
    if isinstance(failure, ReplicaStuckError):
        return Loss.STUCK
    return Loss.GONE if isinstance(failure, ReplicaLostError) else Loss.NONE


def _reason(failure: ReplicaFailedError) -> str:
    """Why a stream moves, for the metrics."""
    if isinstance(failure, ReplicaChangedError):
        return "role"
    return "drain" if isinstance(failure, ReplicaLeavingError) else "failure"


def _avoided(ends: Sequence[LegEnd]) -> set[str]:
    """Replicas that are not tried again now."""
    return {ends[-1].replica_id, *(end.replica_id for end in ends_in_vain(ends))}


def _is_aborted(output: Output) -> bool:
    return isinstance(output, wire.Done) and output.finish_reason == "abort"


def _prompt_counts(leg: Leg) -> tuple[int, int | None]:
    """How many of the prompt's tokens were cached, and how many it has, as the replica says."""
    told = leg.told
    return (told.cached_tokens, told.prompt_tokens) if told is not None else (0, None)


def _whole_start(output: Output) -> wire.Started | None:
    """What a stream that ends with its first output says of its start."""
    if isinstance(output, wire.Done | wire.Embedded):
        return wire.Started(output.stream, output.prompt_tokens, output.cached_tokens)
    return None


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
