"""What an hour of each pool's replicas costs, by the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from weir.cost import nano_usd, replica_usd_per_hour
from weir.settings import Settings
from weir.settings.pools import PoolSettings


@dataclass(frozen=True, slots=True)
class Rate:
    """``on_demand_nano_usd_per_hour``: the same replica in a market without interruptions; the same
    as ``nano_usd_per_hour`` where it is in that already, or that price is not known."""

    nano_usd_per_hour: int = 0
    on_demand_nano_usd_per_hour: int = 0
    market: str = "on_demand"


#: By model and pool; the pool is empty where a model has none.
Rates = Mapping[tuple[str, str], Rate]
FREE = Rate()


def rates_of(settings: Settings) -> Rates:
    """Of every model and pool."""
    rates: dict[tuple[str, str], Rate] = {}
    for model in settings.models:
        pools: tuple[PoolSettings | None, ...] = model.pools or (None,)
        for pool in pools:
            paid = nano_usd(replica_usd_per_hour(settings.prices, model, pool))
            if pool is None or pool.market == "on_demand":
                rates[model.name, pool.name if pool else ""] = Rate(paid, paid)
                continue
            other = pool.model_copy(update={"market": "on_demand"})
            on_demand = nano_usd(replica_usd_per_hour(settings.prices, model, other))
            rates[model.name, pool.name] = Rate(paid, max(paid, on_demand), "spot")
    return rates
