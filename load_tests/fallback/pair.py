"""A cascade on weir's own pair: what the student's confidence is worth, and the cascade itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fallback.cascade import CascadeRule, Verdict, Watch
from load_tests.fallback.overload import session, share
from load_tests.fallback.platform import STUDENT, TEACHER, Live
from load_tests.fallback.traffic import Client, Outcome
from load_tests.report.stats import percentile
from weir import samples

SHARES_ESCALATED = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """The same questions to the teacher, to the student, and to the cascade."""

    teacher: list[Outcome]
    student: list[Outcome]
    cascade: list[Outcome]


async def ask_all(live: Live, source: Iterator[samples.Example], count: int) -> Asked:
    """``count`` questions, each to all three."""
    chosen = list(islice(source, count))
    async with session() as http:
        direct = Client(http, live.url, live.tenants.forbids)
        cascading = Client(http, live.url, live.tenants.cascades)
        places = asyncio.Semaphore(_AT_ONCE)

        async def ask(
            client: Client, example: samples.Example, model: str, scored: bool
        ) -> Outcome:
            async with places:
                return await client.ask(example, model, stream=not scored, logprobs=scored)

        teacher = await asyncio.gather(*(ask(direct, e, TEACHER, False) for e in chosen))
        student = await asyncio.gather(*(ask(direct, e, STUDENT, True) for e in chosen))
        cascade = await asyncio.gather(*(ask(cascading, e, TEACHER, False) for e in chosen))
    return Asked(list(teacher), list(student), list(cascade))


def confidence(outcome: Outcome, first_tokens: int) -> float:
    """The student's signal, as the gateway forms it."""
    watch = Watch(CascadeRule(first_tokens, -1e9))
    assert watch.add(outcome.logprobs, ended=True) in (Verdict.KEEP, Verdict.ESCALATE)
    mean = watch.mean_logprob
    return mean if mean is not None else float("-inf")


def rows(asked: Asked, first_tokens: int, threshold: float) -> list[dict[str, Any]]:
    """What each threshold would have given, from the answers; then the cascade as it ran."""
    pairs = list(zip(asked.student, asked.teacher, strict=True))
    signals = [confidence(student, first_tokens) for student, _ in pairs]
    thresholds = [percentile(signals, 100 * part) for part in SHARES_ESCALATED[1:-1]]
    table = "cascade on weir's own pair, live"
    made = [_at(pairs, signals, float("-inf"), table), _at(pairs, signals, float("inf"), table)]
    made[1:1] = [_at(pairs, signals, t, table) for t in (*thresholds, threshold) if t is not None]
    made.append(_live(asked, threshold, table))
    return made


def _at(
    pairs: Sequence[tuple[Outcome, Outcome]],
    signals: Sequence[float],
    threshold: float,
    table: str,
) -> dict[str, Any]:
    kept = [signal >= threshold for signal in signals]
    chosen = [s if keep else t for (s, t), keep in zip(pairs, kept, strict=True)]
    sure = [s for (s, _), keep in zip(pairs, kept, strict=True) if keep]
    finite = abs(threshold) != float("inf")
    name = f"threshold {threshold:.4f}" if finite else "student" if threshold < 0 else "teacher"
    return {
        "system": f"answers to the same questions, {name}",
        "table": table,
        "questions": len(pairs),
        "threshold": threshold if finite else None,
        "escalated_ratio": 1 - sum(kept) / len(kept) if kept else None,
        "accuracy": share(chosen, lambda o: o.right),
        "accuracy_of_kept": share(sure, lambda o: o.right),
        "common_accuracy": share([o for o in chosen if _common(o)], lambda o: o.right),
        "rare_accuracy": share([o for o in chosen if not _common(o)], lambda o: o.right),
    }


def _live(asked: Asked, threshold: float, table: str) -> dict[str, Any]:
    ran = asked.cascade
    ttft_ms = [o.ttft_s * 1000 for o in ran if o.ttft_s is not None]
    return {
        "system": f"the cascade itself, threshold {threshold:.4f}",
        "table": table,
        "questions": len(ran),
        "threshold": threshold,
        "escalated_ratio": share(ran, lambda o: o.spill == "cascade-escalated"),
        "accuracy": share(ran, lambda o: o.right),
        "accuracy_of_kept": share([o for o in ran if o.model == STUDENT], lambda o: o.right),
        "common_accuracy": share([o for o in ran if _common(o)], lambda o: o.right),
        "rare_accuracy": share([o for o in ran if not _common(o)], lambda o: o.right),
        "errors": sum(1 for o in ran if o.error),
        "ttft_ms_p50": percentile(ttft_ms, 50),
    }


def _common(outcome: Outcome) -> bool:
    return outcome.example.group == "common"
