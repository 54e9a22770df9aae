"""What an hour of each pool's replicas costs, by the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from weir.cost import hour_of_day, nano_usd, replica_usd_by_hour
from weir.settings import ModelSettings, Settings
from weir.settings.pools import PoolSettings


@dataclass(frozen=True, slots=True)
class Rate:
    """``on_demand_nano_usd_per_hour``: the same replica in a market without interruptions; the same
    as ``nano_usd_per_hour`` where it is in that already, or that price is not known. ``by_hour``:
    both for each hour of the day (UTC), where they are not the same all day."""

    nano_usd_per_hour: int = 0
    on_demand_nano_usd_per_hour: int = 0
    market: str = "on_demand"
    by_hour: tuple[tuple[int, int], ...] = ()

    def at(self, at_s: float) -> Rate:
        """In the hour of a time, in seconds since the epoch."""
        if not self.by_hour:
            return self
        paid, on_demand = self.by_hour[hour_of_day(at_s)]
        return replace(self, nano_usd_per_hour=paid, on_demand_nano_usd_per_hour=on_demand)

    @classmethod
    def of_day(cls, by_hour: Sequence[tuple[int, int]], market: str) -> Rate:
        """From both prices of each hour; the plain ones are the highest of the day."""
        most = max(paid for paid, _ in by_hour), max(on_demand for _, on_demand in by_hour)
        return cls(*most, market, tuple(by_hour) if len(set(by_hour)) > 1 else ())


#: By model and pool; the pool is empty where a model has none.
Rates = Mapping[tuple[str, str], Rate]
FREE = Rate()


def rates_of(settings: Settings) -> Rates:
    """Of every model and pool."""
    rates: dict[tuple[str, str], Rate] = {}
    for model in settings.models:
        pools: tuple[PoolSettings | None, ...] = model.pools or (None,)
        for pool in pools:
            paid = _nano_usd_by_hour(settings, model, pool)
            if pool is None or pool.market == "on_demand":
                own = Rate.of_day([(usd, usd) for usd in paid], "on_demand")
                rates[model.name, pool.name if pool else ""] = own
                continue
            other = pool.model_copy(update={"market": "on_demand"})
            both = zip(paid, _nano_usd_by_hour(settings, model, other), strict=True)
            dearer = [(usd, max(usd, on_demand)) for usd, on_demand in both]
            rates[model.name, pool.name] = Rate.of_day(dearer, "spot")
    return rates


def _nano_usd_by_hour(
    settings: Settings, model: ModelSettings, pool: PoolSettings | None
) -> list[int]:
    return [nano_usd(usd) for usd in replica_usd_by_hour(settings.prices, model, pool)]
