"""The reasons for which a request leaves the teacher, and who may be moved for which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from weir.settings import TenantSettings
from weir.settings.fallback import FallbackSettings, Kind

COST: Final[Kind] = "cost"
LONG_TAIL: Final[Kind] = "long-tail"
FAILURE: Final[Kind] = "failure"
OVERLOAD: Final[Kind] = "overload"
CASCADE: Final[Kind] = "cascade"


@dataclass(frozen=True, slots=True)
class Permissions:
    """``classes``: per kind that is switched on, the priority classes it is for (empty: all).
    A tenant's own word goes first: forbidden is never, required is always."""

    classes: Mapping[Kind, frozenset[str]]
    forbidden: Mapping[str, frozenset[Kind]] = field(default_factory=dict)
    required: Mapping[str, frozenset[Kind]] = field(default_factory=dict)

    def allow(self, kind: Kind, tenant: str, priority_class: str) -> bool:
        """May this tenant's request of this class spill for this reason?"""
        if kind in self.forbidden.get(tenant, ()):
            return False
        if kind in self.required.get(tenant, ()):
            return True
        classes = self.classes.get(kind)
        return classes is not None and (not classes or priority_class in classes)


def permissions(fallback: FallbackSettings, tenants: Iterable[TenantSettings]) -> Permissions:
    """What the settings of one model's fallback and of all tenants say together."""
    sections = {
        COST: fallback.cost,
        LONG_TAIL: fallback.long_tail,
        FAILURE: fallback.failure,
        OVERLOAD: fallback.overload,
        CASCADE: fallback.cascade,
    }
    listed = tuple(tenants)
    return Permissions(
        {kind: frozenset(s.classes) for kind, s in sections.items() if s.enabled},
        {t.id: frozenset(t.fallback.forbid) for t in listed if t.fallback.forbid},
        {t.id: frozenset(t.fallback.require) for t in listed if t.fallback.require},
    )
