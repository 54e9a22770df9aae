"""A model's student: the state behind the rules of :mod:`deployments.gateway.plan`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from deployments.gateway.legs import Attempt
from deployments.gateway.plan import AdapterBusyError, Course, ImpatientError
from deployments.gateway.surplus import Surplus
from fallback.cascade import CascadeRule
from fallback.policies import OVERLOAD, BreakerState, Pass, RequestFacts, SpillPolicy
from router.admission import Refusal, SpilledError
from router.admission.gate import Admission
from router.admission.ticket import Ticket
from router.router import Router
from router.types import ReplicaInfo, RouteRequest
from weir.errors import ConfigError, NoReplicaError, OverloadedError, ReplicaFailedError
from weir.metrics import GatewayMetrics
from weir.registry import read_manifest
from weir.settings.fallback import CascadeSettings, FallbackSettings

_STATES = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


class Fallback:
    """One model and its student. ``slo_s``: time-to-first-token limit per priority class;
    ``student_folder``: the student's files, whose manifest may say when its answers can stand."""

    def __init__(
        self,
        model: str,
        settings: FallbackSettings,
        slo_s: Mapping[str, float],
        student_folder: Path,
        clock: Callable[[], float],
    ) -> None:
        self._waiting: set[asyncio.Timeout] = set()
        self.policy = SpillPolicy(settings, slo_s, clock, self.hurry_all)
        cascade = cascade_of(settings, student_folder)
        self.course = Course(model, settings.student, self.policy, cascade)
        share = settings.capacity.max_share if settings.capacity.enabled else 0.0
        #: None where the autoscaler leaves nothing to the student.
        self.surplus = Surplus(share) if share else None

    def watch(self, router: Router, metrics: GatewayMetrics) -> None:
        """Notice when the model's last replica goes, and when one comes."""
        router.listeners.append(self._members_changed)
        circuit = metrics.circuit.labels(self.course.model)
        circuit.set_function(lambda: _STATES[self.policy.breaker.state])

    def spill_reason(
        self, request: RouteRequest, predicted_wait_s: float | None, refusal: Refusal | None
    ) -> str | None:
        """What the admission queue asks (:data:`router.admission.outcomes.SpillRule`). Only
        requests with ``facts`` may spill: one that came back because the student could not take
        it must wait, or be refused, like any other."""
        facts = request.facts
        if not isinstance(facts, RequestFacts) or refusal is Refusal.CLOSED:
            return None
        spills = self.policy.overloaded(facts, predicted_wait_s, refusal is not None)
        return OVERLOAD if spills else None

    @asynccontextmanager
    async def waiting(self, admission: Admission, left_s: float | None) -> AsyncIterator[Ticket]:
        """The admission, entered within ``left_s`` seconds (None: any time) or not at all.

        Raises:
            ImpatientError: it was not, or the pool broke meanwhile.
        """
        async with contextlib.AsyncExitStack() as stack:
            timeout = asyncio.timeout(left_s)
            try:
                async with timeout:
                    self._waiting.add(timeout)
                    # A cancellation inside makes the gate take its ticket back, if it gave one.
                    ticket = await stack.enter_async_context(admission)
            except TimeoutError:
                raise ImpatientError(
                    "The request waited as long as its class should.", retry_after_s=1.0
                ) from None
            finally:
                self._waiting.discard(timeout)
            yield ticket

    def hurry_all(self) -> None:
        """Whoever waits at the gate, waits no more."""
        now = asyncio.get_running_loop().time() if self._waiting else 0.0
        for timeout in self._waiting:
            if not timeout.expired():
                timeout.reschedule(now)

    def _members_changed(self, old: Iterable[ReplicaInfo], new: Iterable[ReplicaInfo]) -> None:
        before = {info.replica_id for info in old}
        after = {info.replica_id for info in new}
        if before and not after:
            self.policy.breaker.trip()
        elif after - before:
            self.policy.breaker.retry_now()


class Trial(contextlib.AbstractContextManager[None]):
    """One attempt's verdict on the pool, for the circuit breaker."""

    def __init__(self, policy: SpillPolicy, entered: Pass, attempt: Attempt) -> None:
        self._policy = policy
        self._entered = entered
        self._attempt = attempt
        self._answered = False

    def first_output(self, at_s: float) -> None:
        """The pool works."""
        self._answered = True
        self._policy.breaker.succeeded(self._entered)
        if self._attempt.admitted_s is not None:
            self._policy.overload.observe_first_token(at_s - self._attempt.admitted_s)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._breaks(error):
            self._policy.breaker.failed(self._entered)
        elif not self._answered:
            self._policy.breaker.cancelled(self._entered)

    def _breaks(self, error: BaseException | None) -> bool:
        if isinstance(error, ReplicaFailedError | NoReplicaError):
            return True
        if isinstance(error, SpilledError | ImpatientError | AdapterBusyError):
            return False
        return isinstance(error, OverloadedError) and self._attempt.admitted_s is not None


def cascade_of(settings: FallbackSettings, student_folder: Path) -> CascadeRule | None:
    """When the student's answer may stand; None if no tenant can have a cascade.

    Raises:
        ConfigError: it is switched on, and neither settings nor manifest say what an answer needs.
    """
    rule = _cascade_rule(settings.cascade, student_folder)
    if rule is None and settings.cascade.enabled:
        raise ConfigError(
            f"{settings.student}'s manifest has no confidence; set first_tokens and threshold"
        )
    return rule


def _cascade_rule(settings: CascadeSettings, student_folder: Path) -> CascadeRule | None:
    manifest = read_manifest(student_folder)
    fitted = manifest.confidence if manifest else None
    tokens = settings.first_tokens or (fitted.first_tokens if fitted else None)
    threshold = settings.threshold
    if threshold is None and fitted:
        threshold = fitted.threshold
    return None if tokens is None or threshold is None else CascadeRule(tokens, threshold)
