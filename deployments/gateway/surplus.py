"""What the autoscaler leaves to the student, as a gateway keeps to it.

The policy says which share of a class's requests the student is to answer
(:mod:`deployments.control.scaling`). Of the requests that may be spilled for this reason every
``1 / share``-th one is taken, counted per class from the gateway's start: the share is kept to one
request, whatever the requests are, and the same requests in the same order are split the same way.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Of a sum of shares.
_ROUNDING = 1e-9


class Surplus:
    """Of one model. ``most_share`` holds whatever is decided. ``may`` and ``taken`` count answers,
    of a class and since the beginning, that may go to the student, and that went."""

    __slots__ = ("_credit", "_most_share", "_shares", "may", "taken")

    def __init__(self, most_share: float) -> None:
        self._most_share = most_share
        self._shares: dict[str, float] = {}
        self._credit: dict[str, float] = {}
        self.may: dict[str, int] = {}
        self.taken: dict[str, int] = {}

    @property
    def shares(self) -> Mapping[str, float]:
        """By class, as they are in force; classes without one keep all requests."""
        return self._shares

    def decide(self, shares: Mapping[str, float]) -> None:
        """New shares by class are in force; without any nothing goes to the student."""
        self._shares = {name: min(share, self._most_share) for name, share in shares.items()}

    def takes(self, priority_class: str, answers: int) -> bool:
        """Whether the next request of the class that may go to the student, with so many answers,
        does go there."""
        self.may[priority_class] = self.may.get(priority_class, 0) + answers
        share = self._shares.get(priority_class)
        if not share:
            return False
        credit = self._credit.get(priority_class, 0.0) + share * answers
        taken = credit >= 1.0 - _ROUNDING
        if taken:
            credit -= answers
            self.taken[priority_class] = self.taken.get(priority_class, 0) + answers
        self._credit[priority_class] = credit
        return taken

    def returned(self, priority_class: str, answers: int) -> None:
        """The student could not take a request that it was to answer: the model is asked after all,
        and counts it itself."""
        self.taken[priority_class] = self.taken.get(priority_class, 0) - answers
