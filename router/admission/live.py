"""Admission whose tenants' weights may change while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Self

from weir.settings.admission import AdmissionSettings

#: The weight that a tenant has now; None: the settings' one.
LiveWeight = Callable[[str], float | None]


def _no_weight(tenant: str) -> None:
    del tenant


@dataclass(frozen=True, slots=True)
class LiveAdmission(AdmissionSettings):
    """The settings, with weights that are asked for at each request."""

    live_weight: LiveWeight = field(default=_no_weight, repr=False, compare=False)

    @classmethod
    def of(cls, settings: AdmissionSettings, live_weight: LiveWeight) -> Self:
        """The same settings, with these weights."""
        values = {each.name: getattr(settings, each.name) for each in fields(settings)}
        return cls(**values, live_weight=live_weight)

    def tenant_weight(self, tenant: str) -> float:
        """The tenant's fair share relative to the others of its class, as it is now."""
        live = self.live_weight(tenant)
        # Not super(): a class with slots is another one than its methods were compiled for.
        return AdmissionSettings.tenant_weight(self, tenant) if live is None else live
