"""How much work of batches is left, and till when: what the autoscaler is told of it, beside what
waits at gateways. Nothing here runs on an event loop."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine, RowMapping, select

from deployments.batches.life import Status
from deployments.batches.tables import batch_models, batches
from weir.autoscaling.report import Backlog, Window
from weir.database import reading

#: What a line is taken for while none of its batch for its model has a result yet: one token for so
#: many bytes of the input, which contain the JSON around the prompt, and so many tokens of output.
_BYTES_PER_TOKEN: Final = 4
_OUTPUT_TOKENS: Final = 256
#: A batch whose window ends sooner asks for no more replicas than if it ended then: they would
#: hardly have started.
_LEAST_LEFT_S: Final = 600.0
#: Of the time that is left, so much is kept for what goes otherwise than reckoned.
_SPARE: Final = 0.1
#: Windows that end within such a span are one.
_TOGETHER_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Job:
    """What is left of a batch for one model: lines, the tokens that they will take, and ``left_s``
    seconds."""

    left_s: float
    lines: int
    computed_tokens: float
    output_tokens: float


def backlogs(engine: Engine, models: Collection[str], now_s: float) -> dict[str, Backlog]:
    """Of the models that have one. Each line counts for the model that it names, and for an
    adapter's model where it names an adapter. ``now_s``: seconds since the epoch.

    Raises:
        DatabaseAwayError: the database does not answer.
    """
    query = (
        select(batch_models, batches.c.expires_s)
        .join(batches, batches.c.number == batch_models.c.batch)
        .where(batches.c.status == Status.IN_PROGRESS, batches.c.expires_s > now_s)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).mappings().all()
    jobs: dict[str, list[Job]] = {}
    for row in rows:
        name = row["model"] if row["model"] in models else row["model"].partition(":")[0]
        if name in models and (job := _job(row, now_s)).lines:
            jobs.setdefault(name, []).append(job)
    return {name: backlog_of(each) for name, each in jobs.items()}


def backlog_of(jobs: Iterable[Job]) -> Backlog:
    """All jobs together, by the ends of their windows."""
    lines, computed, output, first_s = 0, 0.0, 0.0, 0.0
    windows: list[Window] = []
    for job in sorted(jobs, key=lambda each: each.left_s):
        first_s = first_s if lines else job.left_s
        lines += job.lines
        computed += job.computed_tokens
        output += job.output_tokens
        left_s = max(_LEAST_LEFT_S, (1 - _SPARE) * job.left_s)
        if windows and left_s - windows[-1].left_s < _TOGETHER_S:
            left_s = windows.pop().left_s
        windows.append(Window(left_s, computed, output))
    return Backlog(lines, first_s, tuple(windows))


def _job(row: RowMapping, now_s: float) -> Job:
    done = row["done"]
    lines = max(0, row["lines"] - done)
    if done:
        computed = (row["prompt_tokens"] - row["cached_tokens"]) / done
        output = row["output_tokens"] / done
    else:
        computed = row["bytes"] / max(1, row["lines"]) / _BYTES_PER_TOKEN
        output = _OUTPUT_TOKENS
    return Job(row["expires_s"] - now_s, lines, lines * computed, lines * output)
