"""Random fleets for the integer programme: never dearer than greedy, never short in silence."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from load_tests.report import Row, percentile
from weir.autoscaling.programme import MOST_NODES, Risk, Work, cheapest, greedy, missing_work
from weir.autoscaling.report import Capacity, PoolState

_LIMIT_S = 1.0


def solver_rows(reports: int, seed: int) -> list[Row]:
    """One row over all reports. ``silent``: the answer does not do the work and does not say so."""
    rng, took_s = random.Random(seed), []
    dearer = silent = short = over = 0
    saved = []
    for _ in range(reports):
        pools, work, risk = random_pools(rng), random_work(rng), Risk()
        plain = greedy(pools, work, risk)
        begun_s = time.perf_counter()
        found = cheapest(pools, work, risk)
        took_s.append(time.perf_counter() - begun_s)
        over += found.nodes > MOST_NODES
        if found.short:
            short += 1
            continue
        promised = replace(risk, keep=0.0) if found.exposed else risk
        silent += missing_work(pools, found.targets, work, promised) > 1e-5
        if not plain.short:
            dearer += found.usd_per_hour > plain.usd_per_hour + 1e-6
            saved.append(1 - found.usd_per_hour / plain.usd_per_hour)
    return [
        {
            "table": "solver",
            "system": "weir",
            "reports": reports,
            "dearer_than_greedy": dearer,
            "silent": silent,
            "said_to_be_short": short,
            "over_nodes": over,
            "over_a_second": sum(each > _LIMIT_S for each in took_s),
            "took_p50_ms": (percentile(took_s, 50) or 0) * 1e3,
            "took_p99_ms": (percentile(took_s, 99) or 0) * 1e3,
            "saved_over_greedy_mean": sum(saved) / len(saved) if saved else None,
            "saved_over_greedy_most": max(saved, default=None),
        }
    ]


def random_pools(rng: random.Random) -> list[PoolState]:
    """One to five pools of any role, price and market; the first one is mixed."""
    return [
        PoolState(
            f"p{number}",
            Capacity(rng.uniform(5e3, 1e5), rng.uniform(5e2, 2e4), rng.uniform(0.5, 0.9)),
            rng.uniform(0.3, 8),
            role=rng.choice(("mixed", "mixed", "prefill", "decode")) if number else "mixed",
            accelerator=rng.choice("ab"),
            region=rng.choice("xy"),
            market=rng.choice(("spot", "on_demand")),
            least=rng.randint(0, 1),
            most=rng.randint(1, 60),
            interruptions_per_hour=rng.uniform(0, 0.2),
        )
        for number in range(rng.randint(1, 5))
    ]


def random_work(rng: random.Random) -> Work:
    """From far less than a replica to more than there is."""
    return Work(10 ** rng.uniform(3, 6), 10 ** rng.uniform(2, 5), rng.uniform(1, 100))
