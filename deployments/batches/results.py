"""What has come of a batch's lines. Nothing here runs on an event loop.

Results are in parts: contents that are written once. A row per line says where its result is; the
row is what makes it unique. :meth:`ResultTable.record` locks the batch, takes the lines that have
no row yet, and counts them, in one transaction. What is in a part without a row does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Table, and_, insert, select, update

from deployments.batches.jobs import Batch
from deployments.batches.life import Status
from deployments.batches.tables import batch_lines, batch_models, batches
from deployments.batches.work import Chunk
from weir.database import reading, writing


@dataclass(frozen=True, slots=True)
class Result:
    """Where a line's result is in a part. ``model``: the one that the line names."""

    line: int
    offset: int
    bytes: int
    failed: bool
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    model: str = ""


class ResultTable:
    """The rows of lines, and the counts of their batches."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def recorded(self, batch: Batch, chunk: Chunk) -> set[int]:
        """The lines of a chunk that have their result."""
        query = select(batch_lines.c.line).where(
            batch_lines.c.batch == batch.number,
            batch_lines.c.line >= chunk.first_line,
            batch_lines.c.line <= chunk.last_line,
        )
        with reading(self._engine) as connection:
            return set(connection.execute(query).scalars())

    def record(self, number: int, part: str, results: Sequence[Result]) -> frozenset[int] | None:
        """Publish results of the batch of that number, which are in a part: those of lines that
        have none yet; returns which these are. None: the batch takes no more."""
        with writing(self._engine) as connection:
            # Locks the row: what is seen below is as the last transaction left it.
            open_ = and_(batches.c.number == number, batches.c.frozen.is_(False))
            alive = (Status.IN_PROGRESS, Status.CANCELLING)
            lock = update(batches).where(open_, batches.c.status.in_(alive))
            if not connection.execute(lock.values(failed=batches.c.failed)).rowcount:
                return None
            lines = [result.line for result in results]
            known = select(batch_lines.c.line).where(
                batch_lines.c.batch == number, batch_lines.c.line.in_(lines)
            )
            there = set(connection.execute(known).scalars())
            new = [result for result in results if result.line not in there]
            if new:
                rows = [_line_row(number, part, result) for result in new]
                connection.execute(insert(batch_lines), rows)
                connection.execute(update(batches).where(open_).values(_added(new)))
                for model, own in _by_model(new).items():
                    this = and_(batch_models.c.batch == number, batch_models.c.model == model)
                    more = {"done": batch_models.c.done + len(own), **_tokens(batch_models, own)}
                    connection.execute(update(batch_models).where(this).values(more))
            return frozenset(result.line for result in new)

    def parts(self, batch: Batch) -> list[str]:
        """The parts with results of a batch."""
        query = select(batch_lines.c.part).where(batch_lines.c.batch == batch.number).distinct()
        with reading(self._engine) as connection:
            return sorted(connection.execute(query).scalars())

    def results(self, batch: Batch, part: str) -> list[Result]:
        """The results in a part that count, in the order in which they are there."""
        query = select(batch_lines).where(
            batch_lines.c.batch == batch.number, batch_lines.c.part == part
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(batch_lines.c.offset)).mappings().all()
        return [Result(row["line"], row["offset"], row["bytes"], row["failed"]) for row in rows]


def _line_row(batch: int, part: str, result: Result) -> dict[str, Any]:
    return {
        "batch": batch,
        "line": result.line,
        "part": part,
        "offset": result.offset,
        "bytes": result.bytes,
        "failed": result.failed,
    }


def _added(new: Sequence[Result]) -> dict[str, Any]:
    failed = sum(result.failed for result in new)
    return {
        "completed": batches.c.completed + len(new) - failed,
        "failed": batches.c.failed + failed,
        **_tokens(batches, new),
    }


def _by_model(new: Sequence[Result]) -> dict[str, list[Result]]:
    """In the order of their names, in which all gateways lock rows."""
    found: dict[str, list[Result]] = {}
    for result in sorted(new, key=lambda each: each.model):
        found.setdefault(result.model, []).append(result)
    return found


def _tokens(table: Table, new: Sequence[Result]) -> dict[str, Any]:
    """What a row's tokens come to with these results."""
    names = ("prompt_tokens", "cached_tokens", "output_tokens")
    return {name: table.c[name] + sum(getattr(each, name) for each in new) for name in names}
