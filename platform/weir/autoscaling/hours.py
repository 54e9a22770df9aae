"""When work that may wait is done: in the cheapest hours before it has to be done.

Prices may change with the hour of the day (``prices.hours.at``). The hours until a deadline are
taken from the cheapest on, until all replicas that may be started could do the work in them beside
what is urgent; over these the work is spread evenly, so that few replicas do it. In other hours
nothing is started for it. Where the price is the same all day, these are all hours until the
deadline.
"""

from __future__ import annotations

from collections.abc import Sequence

from weir.autoscaling.programme import Risk, Work, time_of
from weir.autoscaling.report import PoolState
from weir.cost import hour_of_day

HOUR_S = 3600.0
DAY_S = 86_400.0
#: Hours whose prices differ by less are equally cheap.
_ALIKE = 1.01
#: So much more time than the work should need is set aside for it.
_MARGIN = 1.2
#: The rest of a cheap stretch is not filled faster than this: replicas take a while to start.
_LEAST_S = 1800.0
_NO_CHOICE_S = 1.0


def pace(
    pools: Sequence[PoolState], work: Work, within_s: float, now_s: float, urgent: Work, risk: Risk
) -> float:
    """Which part of ``work`` to do per second now; 0: later is cheaper. ``work``: tokens in all,
    due ``within_s`` from now; ``urgent``: tokens per second that come first."""
    if within_s <= 0 or not pools:
        return 0.0
    if within_s < _NO_CHOICE_S or not any(pool.usd_by_hour for pool in pools):
        return 1 / within_s
    seconds = hours_until(now_s, within_s)
    prices = {hour: price_of(pools, work, hour, risk) for hour in seconds}
    needed_s = _MARGIN * _needed_s(pools, work, urgent, risk)
    chosen_s, limit = 0.0, 0.0
    for hour in sorted(seconds, key=lambda each: prices[each]):
        if prices[hour] > limit * _ALIKE:  # what is as cheap as the last is taken, too
            if chosen_s >= needed_s and chosen_s > 0:
                break
            limit = prices[hour]
        chosen_s += seconds[hour]
    if prices[hour_of_day(now_s)] > limit * _ALIKE:
        return 0.0
    return 1 / max(chosen_s, min(_LEAST_S, within_s))


def hours_until(now_s: float, within_s: float) -> dict[int, float]:
    """Seconds in each hour of the day (UTC), from now on."""
    days, rest_s = divmod(within_s, DAY_S)
    found = dict.fromkeys(range(24), days * HOUR_S) if days else {}
    at_s, end_s = now_s, now_s + rest_s
    while at_s < end_s:
        until_s = min(end_s, (at_s // HOUR_S + 1) * HOUR_S)
        found[hour_of_day(at_s)] = found.get(hour_of_day(at_s), 0.0) + until_s - at_s
        at_s = until_s
    return found


def price_of(pools: Sequence[PoolState], work: Work, hour: int, risk: Risk) -> float:
    """What the work costs in an hour of the day, by the pool that is cheapest for each part."""
    at_s = hour * HOUR_S
    usable = [pool for pool in pools if pool.most]
    prompts = [
        pool.usd_at(at_s) / time_of(pool, risk) / pool.capacity.prefill_tokens_per_s
        for pool in usable
        if pool.role != "decode"
    ]
    answers = [
        pool.usd_at(at_s) / time_of(pool, risk) / pool.capacity.decode_tokens_per_s
        for pool in usable
        if pool.role != "prefill"
    ]
    return work.computed_tokens_per_s * min(prompts, default=0.0) + (
        work.output_tokens_per_s * min(answers, default=0.0)
    )


def _needed_s(pools: Sequence[PoolState], work: Work, urgent: Work, risk: Risk) -> float:
    """How long all replicas that may be started take for it, with what the urgent work leaves."""
    time = {pool.name: pool.most * time_of(pool, risk) for pool in pools}
    prompts = sum(
        time[pool.name] * pool.capacity.prefill_tokens_per_s
        for pool in pools
        if pool.role != "decode"
    )
    answers = sum(
        time[pool.name] * pool.capacity.decode_tokens_per_s
        for pool in pools
        if pool.role != "prefill"
    )

    def of_fleet(each: Work) -> float:
        return each.computed_tokens_per_s / max(prompts, 1e-9) + (
            each.output_tokens_per_s / max(answers, 1e-9)
        )

    return of_fleet(work) / max(0.05, 1 - of_fleet(urgent))
