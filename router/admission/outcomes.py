"""What admission can say about a request: run it, wait, refuse it, or send it elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from router.types import RouteRequest
from weir.errors import OverloadedError, WeirError


class Refusal(StrEnum):
    """Why a request does not run here; a bounded label for metrics."""

    QUEUE_FULL = "queue_full"
    TENANT_SHARE = "tenant_share"
    DEADLINE = "deadline"
    WAIT_LIMIT = "wait_limit"
    CLOSED = "closed"


class Dispatch(NamedTuple):
    """Run ``request`` now, on any replica not in ``saturated``.

    ``priority`` is for the engine's own priority scheduler: lower runs sooner and is preempted
    later.
    """

    request: RouteRequest
    priority: int
    saturated: frozenset[str] = frozenset()
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now. ``until_s``: when something changes by itself (a deadline or a wait
    limit passes), on the queue's clock; None if only an event can change anything."""

    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Shed:
    """The request is refused and out of the queue; ``error`` carries ``retry_after_s``."""

    request: RouteRequest
    reason: Refusal
    error: WeirError

    @property
    def retry_after_s(self) -> float | None:
        return self.error.retry_after_s


@dataclass(frozen=True, slots=True)
class Spill:
    """The request is out of the queue and should be answered by the fallback; ``reason`` is the
    spill rule's own. ``refusal`` is what would have been said without a fallback (None when
    the request could have waited); ``retry_after_s`` is for a fallback that cannot take it."""

    request: RouteRequest
    reason: str
    refusal: Refusal | None = None
    retry_after_s: float | None = None

    @property
    def error(self) -> SpilledError:
        """For whoever has no fallback to send it to."""
        return SpilledError(self)


@dataclass(frozen=True, slots=True)
class Failed:
    """The request had its turn, and no replica could be chosen for it."""

    request: RouteRequest
    error: Exception

    @property
    def reason(self) -> str:
        """For logs and metrics."""
        return "no_replica"


Refused = Shed | Spill | Failed
"""Every refusal has the request, a ``reason`` and the ``error`` to raise."""

SpillRule = Callable[[RouteRequest, float | None, Refusal | None], str | None]
"""``(request, predicted_wait_s, refusal) -> reason or None``. Asked once when the request is
offered (``refusal`` None if it could wait) and again when a waiting request is to be refused.
``predicted_wait_s`` is None while nothing is known about the drain rate."""


class SpilledError(OverloadedError):
    """Raised at the gate for :class:`Spill`. Whoever has a fallback catches it; anyone else
    answers it as the overload it is."""

    def __init__(self, spill: Spill) -> None:
        super().__init__(
            f"the request was to be answered by the fallback ({spill.reason}), which is not set up",
            retry_after_s=spill.retry_after_s,
        )
        self.spill = spill
