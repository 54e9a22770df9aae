"""From finished parts to rows of the offline store: checked, or quarantined."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.desk_data import GENERATED, DataFolder
from features.desk_data.tables import schema
from features.desk_data.views import CREATED, EVENT_TIMESTAMP
from features.desk_data.writing import replace_text, write_table
from features.generation.checks import CheckLimits, check_part
from features.generation.histories import Histories
from features.generation.runs import Run


@dataclass(frozen=True, slots=True)
class Publication:
    """What became of a run's parts."""

    version: str
    rows: int
    entities: tuple[str, ...]
    parts_published: int
    parts_quarantined: int
    parts_left: int
    invalid: int
    null_summaries: int
    reasons: tuple[str, ...]


def publish(run: Run, data: DataFolder, limits: CheckLimits, now: dt.datetime) -> Publication:
    """Check the finished parts of ``run``; write the good ones to the offline store as one file.

    A row's event time is the time of publishing, not of writing: before it nobody could know the
    feature, and a training set that used it earlier would leak. Publishing again, after more parts
    came, adds a file with those only.
    """
    plan = run.plan()
    histories = Histories(data, plan.entities)
    before = run.published()
    rows: list[dict[str, Any]] = []
    published, reasons, invalid, nulls = [], [], 0, 0
    for number in range(len(plan.parts)):
        file = run.part_file(number)
        if not file.exists() or number in before:
            continue
        report = check_part(plan, pq.read_table(file).to_pylist(), histories, limits)
        if not report.good:
            _quarantine(run, number, report.problems)
            reasons += [f"part {number}: {problem}" for problem in report.problems]
            continue
        rows += report.rows
        published.append(number)
        invalid, nulls = invalid + report.invalid, nulls + report.nulls
    if rows:
        times = {EVENT_TIMESTAMP: now, CREATED: now}
        table = pa.Table.from_pylist([row | times for row in rows], schema=schema(GENERATED))
        name = f"version={plan.version}-{now.strftime('%H%M%S%f')}.parquet"
        write_table(table, data.offline(GENERATED) / name)
        run.record_published(published)
    left = sum(not run.finished(n) for n in range(len(plan.parts)))
    done = Publication(
        plan.version,
        len(rows),
        tuple(row["entity"] for row in rows),
        len(published),
        len(list(run.quarantine.glob("part-*.parquet"))),
        left,
        invalid,
        nulls,
        tuple(reasons),
    )
    if not left:
        run.end(
            parts_published=len(run.published()),
            parts_quarantined=done.parts_quarantined,
            ended_at=now.isoformat(),
        )
    return done


def _quarantine(run: Run, number: int, problems: tuple[str, ...]) -> None:
    file = run.part_file(number)
    replace_text(
        run.quarantine / f"{file.stem}.json", json.dumps({"problems": problems}, indent=2) + "\n"
    )
    file.replace(run.quarantine / file.name)
