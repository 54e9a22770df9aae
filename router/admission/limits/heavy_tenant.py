"""Heavy tenant: who has far more in flight than others of its class leaves head-room for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from router.admission.limit import Limit, Standing, register
from weir.settings.admission import Part, Share


@dataclass(frozen=True, slots=True)
class HeavyTenantParams:
    """Heavy is who has more than ``times`` as many requests in flight, for its weight, as the
    tenants of the class have on average. It may fill the given part of each limit."""

    times: Annotated[float, Field(ge=1)] = 2.0
    prefill: Part = 0.25
    running: Part = 1.0
    kv: Part = 1.0


@register("heavy-tenant", HeavyTenantParams)
class HeavyTenant(Limit):
    """Fair order alone does not protect others from a flood: what the flooder has in the engines
    already cannot be taken back.

    Worth beside a flood of 16 times: the others' TTFT p99 is 1.3 instead of 2.0 times that of calm
    (pooled, 24 simulated seconds of ``weir bench priority``'s flood; ADR 11).
    """

    def __init__(self, params: HeavyTenantParams) -> None:
        self._times = params.times
        self._share = Share(params.prefill, params.running, params.kv, crowd_out=True)

    def share(self, standing: Standing) -> Share | None:
        own = standing.tenant_in_flight * standing.class_tenants
        if own > self._times * standing.class_in_flight * standing.tenant_weight:
            return self._share
        return None
