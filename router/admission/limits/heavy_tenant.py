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
    prefill: Part = 0.1
    running: Part = 1.0
    kv: Part = 1.0


@register("heavy-tenant", HeavyTenantParams)
class HeavyTenant(Limit):
    """Fair order alone does not protect others from a flood: what the flooder has in the engines
    already cannot be taken back.

    A tenth of the prefill limit means that its prompts begin where next to no other prompt is
    outstanding. Beside a flood of 16 times the others' TTFT p99 is 1.1 to 1.2 times that of calm,
    and 1.4 to 1.6 with a quarter (pooled, three seeds of 60 simulated seconds). Where one of ten
    tenants has 40 or 70 % of the requests, and nobody floods, that costs up to 0.3 % of the
    requests in time at a load of 0.9, and up to 0.6 % at saturation (ADR 11).
    """

    def __init__(self, params: HeavyTenantParams) -> None:
        self._times = params.times
        self._share = Share(params.prefill, params.running, params.kv, crowd_out=True)

    def share(self, standing: Standing) -> Share | None:
        own = standing.tenant_in_flight * standing.class_tenants
        if own > self._times * standing.class_in_flight * standing.tenant_weight:
            return self._share
        return None
