"""The life of a batch job: which status may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Status(StrEnum):
    """As OpenAI's clients read it."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return not FOLLOWERS[self]


#: A job that expires before its lines are known has nothing to finalize.
FOLLOWERS: Mapping[Status, frozenset[Status]] = {
    Status.VALIDATING: frozenset(
        {Status.IN_PROGRESS, Status.FAILED, Status.CANCELLING, Status.EXPIRED}
    ),
    Status.IN_PROGRESS: frozenset({Status.FINALIZING, Status.CANCELLING}),
    Status.FINALIZING: frozenset({Status.COMPLETED, Status.EXPIRED}),
    Status.CANCELLING: frozenset({Status.CANCELLED}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.EXPIRED: frozenset(),
    Status.CANCELLED: frozenset(),
}
ACTIVE = frozenset(status for status in Status if not status.ended)
CANCELLABLE = frozenset(s for s, followers in FOLLOWERS.items() if Status.CANCELLING in followers)


def origins(status: Status) -> frozenset[Status]:
    """Those that it may follow."""
    return frozenset(before for before, followers in FOLLOWERS.items() if status in followers)
