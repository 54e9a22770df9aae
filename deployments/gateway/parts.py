"""What a gateway is made of."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from deployments.gateway.accounts import Account
from deployments.gateway.adapters import AdapterNames
from deployments.gateway.bodies import TextBody
from deployments.gateway.booking import Ledger
from deployments.gateway.demand import Answered
from deployments.gateway.ending import ClassLimits
from deployments.gateway.fallbacks import Fallback
from deployments.gateway.model import Model
from deployments.gateway.off_loop import OffLoop
from deployments.gateway.plan import Limits
from deployments.gateway.request import Header
from deployments.gateway.tracing.tracer import Tracer
from features.enrichment import Enrichment
from weir.metrics import GatewayMetrics
from weir.tenancy import LiveDirectory, Tenant


def random_ids() -> Callable[[], str]:
    """Makes unique ids of 96 random bits. They are no secrets, so the system's source is asked for
    a seed only: asking it each time costs 9 µs."""
    rng = random.Random()
    return lambda: f"{rng.getrandbits(96):024x}"


class Enriching(Protocol):
    """Features that are being looked up."""

    async def finish(self) -> Enrichment[TextBody]:
        """The body that is tokenized; raises where features are required and cannot be had."""
        ...


class Enricher(Protocol):
    """Adds online features to the prompt."""

    def begin(self, tenant: Tenant, body: TextBody, header: Header) -> Enriching:
        """Start to look up; never raises, and what is begun need not be finished."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a gateway needs. ``classes``: the priority classes' names; ``slo``: their
    limits. ``ledger``: where what was used is kept. ``tracer``: None where requests are not traced;
    ``answered`` is told how fast requests were answered. ``rng`` draws which requests a candidate
    version gets to see as well, in the least urgent class (``lazy_class``). ``ids`` makes
    unique ids; ``wall_clock`` gives seconds since the epoch, for what clients are told. The event
    loop's clock is the only other."""

    directory: LiveDirectory
    models: Mapping[str, Model]
    account: Account
    enricher: Enricher
    classes: Sequence[str]
    metrics: GatewayMetrics
    limits: Limits
    off_loop: OffLoop
    fallbacks: Mapping[str, Fallback] = field(default_factory=dict)
    slo: ClassLimits = field(default_factory=ClassLimits)
    adapters: AdapterNames = field(default_factory=lambda: AdapterNames(()))
    ledger: Ledger | None = None
    tracer: Tracer | None = None
    answered: Answered | None = None
    rng: random.Random = field(default_factory=random.Random)
    lazy_class: str = "batch"
    ids: Callable[[], str] = field(default_factory=random_ids)
    wall_clock: Callable[[], float] = time.time
