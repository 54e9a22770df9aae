"""More interactive requests than the teacher can take, with and without spilling."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import aiohttp

from load_tests.fallback.platform import STUDENT, TEACHER, TTFT_SLO_MS, Live
from load_tests.fallback.traffic import Client, Flow, Outcome, closed_loop, open_loop
from load_tests.report.stats import percentile
from weir import samples

TIMES_CAPACITY = 3.0
# Of the teacher's capacity, beside the interactive requests.
BATCH_PART = 0.1


async def capacity_per_s(live: Live, source: Iterator[samples.Example], seconds: float) -> float:
    """Requests per second that the teacher answers when there is always one more."""
    async with session() as http:
        client = Client(http, live.url, live.tenants.forbids)
        outcomes = await closed_loop(
            lambda example: client.ask(example, TEACHER), source, 4, seconds
        )
    good = [o for o in outcomes if not o.error]
    took_s = max(o.end_s for o in outcomes) - min(o.due_s for o in outcomes)
    return len(good) / took_s


async def run(
    live: Live, source: Iterator[samples.Example], capacity: float, seconds: float, seed: int
) -> dict[str, list[Outcome]]:
    """Outcomes by system; each twice, in turn, on the same arrivals."""
    flows = [
        Flow("interactive", TIMES_CAPACITY * capacity),
        Flow("batch", BATCH_PART * capacity),
    ]
    keys = {"without": live.tenants.forbids, "with": live.tenants.spills}
    found: dict[str, list[Outcome]] = {name: [] for name in keys}
    async with session() as http:
        for number, name in enumerate(("without", "with", "with", "without")):
            client = Client(http, live.url, keys[name])
            rng = random.Random(f"{seed}/{number // 2}")
            found[name] += await open_loop(_asker(client), source, flows, seconds, rng)
    return found


def _asker(client: Client) -> Callable[[samples.Example, str, float, bool], Any]:
    def ask(example: samples.Example, priority: str, due_s: float, stream: bool) -> Any:
        return client.ask(example, TEACHER, due_s=due_s, priority=priority, stream=stream)

    return ask


def rows(found: dict[str, list[Outcome]], capacity: float) -> list[dict[str, Any]]:
    """One row per system and class."""
    made = []
    for name, outcomes in found.items():
        for priority in ("interactive", "batch"):
            mine = [o for o in outcomes if o.priority == priority]
            made.append(
                {
                    "system": f"weir {name} spill, {priority}",
                    "table": f"overload, {TIMES_CAPACITY:g} x the teacher's capacity, live",
                    "teacher_capacity_req_per_s": capacity,
                    **figures(mine),
                }
            )
    return made


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """SLO, latency, accuracy and where the answers came from."""
    answered = [o for o in outcomes if not o.error]
    ttft_ms = [o.ttft_s * 1000 for o in answered if o.ttft_s is not None]
    return {
        "requests": len(outcomes),
        "slo_attained_ratio": attained(outcomes),
        "refused_ratio": share(outcomes, lambda o: bool(o.error)),
        "ttft_ms_p50": percentile(ttft_ms, 50),
        "ttft_ms_p99": percentile(ttft_ms, 99),
        "by_student_ratio": share(answered, lambda o: o.model == STUDENT),
        "accuracy_of_answers": share(answered, lambda o: o.right),
        "right_answers_of_all_ratio": share(outcomes, lambda o: o.right),
        "teacher_accuracy": share([o for o in answered if o.model == TEACHER], lambda o: o.right),
        "student_accuracy": share([o for o in answered if o.model == STUDENT], lambda o: o.right),
    }


def attained(outcomes: Sequence[Outcome]) -> float | None:
    """The share that was answered whole, with its first token in time."""
    slo_s = TTFT_SLO_MS / 1000
    return share(outcomes, lambda o: not o.error and o.ttft_s is not None and o.ttft_s <= slo_s)


def share(outcomes: Sequence[Outcome], holds: Callable[[Outcome], bool]) -> float | None:
    """None of nothing."""
    return sum(map(holds, outcomes)) / len(outcomes) if outcomes else None


def session() -> aiohttp.ClientSession:
    """Any number of connections, none given up early."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120)
    )
