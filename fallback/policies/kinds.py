"""The reasons for which a request leaves the teacher, and who may be moved for which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from weir.settings.fallback import FallbackSettings, Kind, TenantFallbackSettings

COST: Final[Kind] = "cost"
LONG_TAIL: Final[Kind] = "long-tail"
CAPACITY: Final[Kind] = "capacity"
FAILURE: Final[Kind] = "failure"
OVERLOAD: Final[Kind] = "overload"
CASCADE: Final[Kind] = "cascade"


#: A tenant that leaves everything to the model's settings.
NO_WISHES: Final = TenantFallbackSettings()


@dataclass(frozen=True, slots=True)
class Permissions:
    """``classes``: per kind that is switched on, the priority classes it is for (empty: all).
    A tenant's own word goes first: forbidden is never, required is always."""

    classes: Mapping[Kind, frozenset[str]]

    def allow(self, kind: Kind, wishes: TenantFallbackSettings, priority_class: str) -> bool:
        """May a request of a tenant with these wishes, of this class, spill for this reason?"""
        if kind in wishes.forbid:
            return False
        if kind in wishes.require:
            return True
        classes = self.classes.get(kind)
        return classes is not None and (not classes or priority_class in classes)


def permissions(fallback: FallbackSettings) -> Permissions:
    """What the settings of one model's fallback say."""
    sections = {
        COST: fallback.cost,
        LONG_TAIL: fallback.long_tail,
        CAPACITY: fallback.capacity,
        FAILURE: fallback.failure,
        OVERLOAD: fallback.overload,
        CASCADE: fallback.cascade,
    }
    return Permissions({k: frozenset(s.classes) for k, s in sections.items() if s.enabled})
