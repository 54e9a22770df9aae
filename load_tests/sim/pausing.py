"""Sequences that an engine does not run for now, as :mod:`deployments.yielding` holds them back."""

from __future__ import annotations

from collections.abc import Sequence

from load_tests.sim.decoding import DecodeSet
from load_tests.sim.request import SimRequest
from router.admission.engine_priority import engine_urgency
from router.yielding import MOST_STEPS_PAUSED


class Paused:
    """Decoding sequences of later classes, out of the engine's :class:`DecodeSet` for some steps.
    They keep their KV blocks and their place."""

    __slots__ = ("_members", "steps")

    def __init__(self) -> None:
        self.steps = 0  # in a row
        self._members: dict[int, tuple[SimRequest, int]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def requests(self) -> list[SimRequest]:
        """Those that are paused."""
        return [request for request, _ in self._members.values()]

    def most_urgent(self, prompts: Sequence[SimRequest], decoding: DecodeSet) -> int | None:
        """The urgency whose prompts the next step is for; None: it is everybody's."""
        urgencies = [engine_urgency(request.priority) for request in prompts]
        urgent = min(urgencies, default=0)
        others = (engine_urgency(request.priority) for request in decoding.requests())
        later = any(urgency > urgent for urgency in urgencies) or any(
            each > urgent for each in others
        )
        if urgencies and later and self.steps < MOST_STEPS_PAUSED:
            return urgent
        self.steps = 0
        return None

    def hold(self, decoding: DecodeSet, urgent: int) -> None:
        """Take out everything of a later class than ``urgent``."""
        for request, left in decoding.members():
            if engine_urgency(request.priority) > urgent:
                decoding.take(request)
                self._members[request.index] = (request, left)

    def resume(self, decoding: DecodeSet) -> None:
        """Put all of them back."""
        for request, left in self._members.values():
            decoding.add(request, left)
        self._members.clear()
