"""The role that a replica has for a while instead of its pool's.

The replica itself is the one that knows: it tells every gateway in the messages about its load, and
its minimum time between two changes holds whoever asks. Nothing of it is kept elsewhere; a replica
that starts again has its pool's role.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from router.disaggregation.roles import LEAST_S, Change, Member, RoleRefusedError, check_change
from weir.settings.pools import Role

LONGEST_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Temporary:
    """``until_s`` is on the loop's clock (infinite: until it is told to change), ``until``: the
    same in seconds since the epoch, None for ever."""

    role: Role
    until_s: float = math.inf
    until: float | None = None


class RoleKeeper:
    """One replica's. ``own``: its pool's role; ``changes``: its engine can do all of them."""

    def __init__(
        self, own: Role = "mixed", changes: bool = False, least_s: float = LEAST_S
    ) -> None:
        self.own: Role = own
        self.changes = changes
        self._least_s = least_s
        self._temporary: Temporary | None = None
        self._changed_s = -math.inf
        #: Called when it is told to change.
        self.changed: Callable[[], None] = lambda: None

    def now(self, now_s: float) -> Temporary | None:
        """What it has instead of its pool's role; None: it has that one."""
        held = self._temporary
        if held is not None and held.until_s <= now_s:
            self._temporary, self._changed_s = None, held.until_s
        return self._temporary

    def role(self, now_s: float) -> Role:
        """What it does now."""
        held = self.now(now_s)
        return self.own if held is None else held.role

    def change(
        self, role: Role, now_s: float, for_s: float | None = None, epoch_s: float = 0.0
    ) -> None:
        """From now on, for so long (None: until told otherwise). ``epoch_s``: what time it is,
        since the epoch. Told again what it does already, only the time is new.

        Raises:
            RoleRefusedError: it cannot, or it has changed a moment ago.
        """
        if for_s is not None and not self._least_s <= for_s <= LONGEST_S:
            raise RoleRefusedError(
                f"A role is had for {self._least_s:g} s at least, and a week at most."
            )
        before = self.role(now_s)
        itself = Member("this", before, self.own, self.changes, self._changed_s)
        # That others answer and compute prompts is for those to judge who know them.
        others = [Member("a", "mixed"), Member("b", "mixed")]
        check_change([itself, *others], Change("this", role), now_s, self._least_s)
        if role != before:
            self._changed_s = now_s
        if role == self.own:
            self._temporary = None
        elif for_s is None:
            self._temporary = Temporary(role)
        else:
            self._temporary = Temporary(role, now_s + for_s, epoch_s + for_s)
        self.changed()
