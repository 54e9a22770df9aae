"""How many replicas of a pool only compute prompts, where the demand decides that. Pure.

The replicas of a pool whose roles follow the demand are split in the ratio of the time that prompts
and answers take: with ``p`` seconds of prompts and ``a`` seconds of answers arriving per second,
``n * p / (p + a)`` of ``n`` replicas compute prompts. What pools with a role of their own do is
taken off before.
"""

from __future__ import annotations

from collections.abc import Iterable

from weir.autoscaling.report import ModelState, PoolState

#: The split stays while what is wanted differs from it by no more than so many replicas. Half of
#: one would be no hysteresis.
_KEPT = 0.75


def splits(model: ModelState) -> dict[str, int]:
    """By pool whose roles follow the demand, how many of its ready replicas shall only compute
    prompts; the others only answer. Without demand, and with fewer than two replicas, a pool is
    left as it is."""
    found: dict[str, int] = {}
    for pool in model.pools:
        if not pool.splits or pool.ready < 2:
            continue
        share = _share_of_prompts(model, pool)
        if share is not None:
            found[pool.name] = split_of(pool.ready, share, pool.prefilling)
    return found


def split_of(replicas: int, share: float, now: int) -> int:
    """Of ``replicas`` (two at least), those that compute prompts, where prompts take ``share`` of
    the time; ``now``: those that do so already, 0 where there is no split yet."""
    wanted = replicas * share
    kept = 0 < now < replicas and abs(wanted - now) <= _KEPT
    return now if kept else min(replicas - 1, max(1, round(wanted)))


def _share_of_prompts(model: ModelState, pool: PoolState) -> float | None:
    classes = model.classes.values()
    prompts = sum(demand.computed_tokens_per_s for demand in classes)
    answers = sum(demand.output_tokens_per_s for demand in classes)
    capacity = pool.capacity
    prompts -= _done((p for p in model.pools if p.role == "prefill"), prefill=True)
    answers -= _done((p for p in model.pools if p.role == "decode"), prefill=False)
    prompts_s = max(0.0, prompts) / capacity.prefill_tokens_per_s
    answers_s = max(0.0, answers) / capacity.decode_tokens_per_s
    whole_s = prompts_s + answers_s
    return prompts_s / whole_s if whole_s else None


def _done(pools: Iterable[PoolState], prefill: bool) -> float:
    """Tokens per second that pools with that role do."""
    return sum(
        pool.ready
        * pool.capacity.usable
        * (pool.capacity.prefill_tokens_per_s if prefill else pool.capacity.decode_tokens_per_s)
        for pool in pools
    )
