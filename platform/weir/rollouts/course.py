"""The life of a rollout: from its first step to its end, as a pure function of what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import TypeAdapter

from weir.rollouts.findings import Verdict
from weir.settings.rollout import RolloutSettings

State = Literal["running", "held", "promoted", "rolled back", "aborted"]
#: Nothing happens to a rollout in one of these any more.
ENDED: tuple[State, ...] = ("promoted", "rolled back", "aborted")


@dataclass(frozen=True, slots=True)
class Rollout:
    """A candidate that is tried in the place of a model. ``model`` and ``candidate`` are names of
    models. ``step``: which of the settings' steps it is at, since ``stepped_s``. Times are seconds
    since the epoch. ``reason``: why it is in its state, in words. ``closed``: it was promoted, and
    the model itself is the new version now."""

    id: str
    model: str
    candidate: str
    settings: RolloutSettings
    started_s: float
    stepped_s: float
    step: int = 0
    state: State = "running"
    reason: str = ""
    ended_s: float | None = None
    closed: bool = False

    @property
    def in_force(self) -> bool:
        """Whether it makes a difference to who answers."""
        return self.state not in ENDED or (self.state == "promoted" and not self.closed)

    @property
    def share(self) -> float:
        """The share of conversations that the candidate answers."""
        if self.state == "promoted":
            return 0.0 if self.closed else 1.0
        return 0.0 if self.state in ENDED else self.settings.steps[self.step]

    @property
    def mirror(self) -> float:
        """The share of the other requests that it is asked as well."""
        return 0.0 if self.state in ENDED else self.settings.mirror


def ended(rollout: Rollout, state: State, reason: str, now_s: float) -> Rollout:
    """The rollout at its end.

    Raises:
        ValueError: it has ended before.
    """
    if rollout.state in ENDED:
        raise ValueError(f"the rollout {rollout.id} is {rollout.state} already")
    return replace(rollout, state=state, reason=reason, ended_s=now_s)


def advanced(rollout: Rollout, verdict: Verdict, now_s: float) -> Rollout:
    """What becomes of it, now that the judge says so. A rollout that is held by hand, or waits to
    be promoted by hand, is still rolled back when the candidate turns out to be worse."""
    settings = rollout.settings
    if rollout.state in ENDED:
        return rollout
    if verdict.action == "roll back":
        return ended(rollout, "rolled back", f"worse than allowed: {verdict.because}", now_s)
    if rollout.state == "held":
        return rollout
    if verdict.action == "promote":
        if settings.promote == "hold":
            reason = "good in all criteria; waits to be promoted"
            return replace(rollout, state="held", reason=reason)
        return ended(rollout, "promoted", "good in all criteria", now_s)
    if now_s - rollout.started_s >= settings.most_s:
        if settings.on_timeout == "roll back":
            return ended(rollout, "rolled back", "no verdict in time", now_s)
        return replace(rollout, state="held", reason="no verdict in time")
    return _stepped(rollout, verdict, now_s)


def _stepped(rollout: Rollout, verdict: Verdict, now_s: float) -> Rollout:
    settings = rollout.settings
    last = rollout.step + 1 >= len(settings.steps)
    if last or now_s - rollout.stepped_s < settings.step_s:
        return rollout
    doubt = next((f for f in verdict.findings if f.evidence_bad >= settings.hold_evidence), None)
    if doubt is not None:
        return replace(rollout, reason=f"stays at its share: {doubt.criterion} may be worse")
    return replace(rollout, step=rollout.step + 1, stepped_s=now_s, reason="")


def as_document(rollouts: Sequence[Rollout]) -> list[dict[str, Any]]:
    """As they are kept in the database and in files."""
    return [_ONE.dump_python(each, mode="json") for each in rollouts]


def rollouts_of(document: Iterable[Any]) -> tuple[Rollout, ...]:
    """What :func:`as_document` gave.

    Raises:
        pydantic.ValidationError: it is nothing of the kind.
    """
    return tuple(_ONE.validate_python(each) for each in document)


_ONE = TypeAdapter(Rollout)
