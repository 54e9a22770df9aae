"""Who works on which batch. Nothing here runs on an event loop.

Two kinds of work are leased: a batch (to validate it, or to put its outputs together) and a chunk
of a batch's lines. A lease only saves double work: what makes a line's result unique is its row
(:mod:`deployments.batches.results`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from deployments.batches.files import StoredFile, add_output
from deployments.batches.jobs import Batch, batch_of
from deployments.batches.life import Status, origins
from deployments.batches.tables import batch_chunks, batch_lines, batch_models, batches
from weir.database import reading, writing

_INSERTED_AT_ONCE = 500
_NO_LEASE: Mapping[str, Any] = {"lease_owner": None, "lease_until_s": None}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines that follow each other in the input: ``bytes`` bytes from ``offset`` on. ``requests``
    of them are not blank."""

    number: int
    first_line: int
    last_line: int
    requests: int
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Share:
    """What of a batch is for one model: so many lines, of so many bytes."""

    lines: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A chunk of a batch, leased."""

    batch: Batch
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Outlook:
    """``free``: whether there are chunks that nobody works on; ``elsewhere``: whether another
    gateway holds a lease of one."""

    free: bool
    elsewhere: bool


class WorkTable:
    """As one gateway sees it: ``owner`` is its name, unique among gateways. ``now_s``: seconds
    since the epoch; clocks of gateways must agree to within a part of ``lease_s``."""

    def __init__(self, engine: Engine, owner: str, lease_s: float) -> None:
        self._engine = engine
        self._owner = owner
        self.lease_s = lease_s

    # A whole batch ------------------------------------------------------------------------------

    def claim_batch(self, now_s: float) -> Batch | None:
        """A batch to validate or to put together; its lease is this gateway's."""
        free = or_(batches.c.lease_until_s.is_(None), batches.c.lease_until_s < now_s)
        query = select(batches).where(self._due(now_s), free).order_by(batches.c.number).limit(1)
        with reading(self._engine) as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            return None
        with writing(self._engine) as connection:
            taken: dict[str, Any] = {
                "lease_owner": self._owner,
                "lease_until_s": now_s + self.lease_s,
                # Its counts are final from here on.
                "frozen": row["status"] != Status.VALIDATING,
            }
            if row["status"] == Status.IN_PROGRESS:
                taken |= {"status": Status.FINALIZING, "finalizing_s": now_s}
            same = and_(batches.c.number == row["number"], batches.c.status == row["status"])
            if not connection.execute(update(batches).where(same, free).values(taken)).rowcount:
                return None
            return _batch(connection, row["number"])

    def _due(self, now_s: float) -> Any:
        """Batches that are to be validated or put together. Whoever computes lines of a batch that
        is cancelled or expires has a moment to hand in what it has."""
        held = (
            select(batch_chunks.c.batch)
            .where(
                batch_chunks.c.batch == batches.c.number,
                batch_chunks.c.done.is_(False),
                batch_chunks.c.lease_until_s >= now_s,
            )
            .exists()
        )
        return or_(
            batches.c.status.in_((Status.VALIDATING, Status.FINALIZING)),
            and_(batches.c.status == Status.CANCELLING, ~held),
            and_(batches.c.status == Status.IN_PROGRESS, batches.c.expires_s <= now_s, ~held),
        )

    def begin(
        self, batch: Batch, chunks: Sequence[Chunk], models: Mapping[str, Share], now_s: float
    ) -> bool:
        """All lines are good: they can be computed. ``models``: what of them is for which. False:
        the batch is no longer this gateway's, or has been cancelled."""
        begun = {
            "model": next(iter(models)) if len(models) == 1 else None,
            "total": sum(chunk.requests for chunk in chunks),
        }
        with writing(self._engine) as connection:
            if not self._move(connection, batch, Status.IN_PROGRESS, now_s, begun):
                return False
            _insert(connection, batch_models, [
                _model_row(batch.number, model, share) for model, share in models.items()
            ])  # fmt: skip
            rows = [
                {
                    "batch": batch.number,
                    "chunk": chunk.number,
                    "first_line": chunk.first_line,
                    "last_line": chunk.last_line,
                    "requests": chunk.requests,
                    "offset": chunk.offset,
                    "bytes": chunk.bytes,
                    "done": False,
                }
                for chunk in chunks
            ]
            _insert(connection, batch_chunks, rows)
            return True

    def fail(self, batch: Batch, errors: Sequence[dict[str, Any]], now_s: float) -> bool:
        """The input cannot be used."""
        with writing(self._engine) as connection:
            return self._move(
                connection, batch, Status.FAILED, now_s, {"errors": list(errors), "total": 0}
            )

    def finish(
        self,
        batch: Batch,
        status: Status,
        output: StoredFile | None,
        error: StoredFile | None,
        not_computed: int,
        told: int,
        now_s: float,
    ) -> bool:
        """The end of a batch: from this transaction on its outputs are there. ``not_computed``:
        lines without a result; ``told``: those of them that are in the error file, which count as
        failed. ``output`` and ``error``: its files, where
        there is something in them."""
        ended = {
            "failed": batches.c.failed + told,
            "not_computed": not_computed,
            "output_file_id": output.id if output else None,
            "error_file_id": error.id if error else None,
        }
        with writing(self._engine) as connection:
            if not self._move(connection, batch, status, now_s, ended):
                return False
            for made in (output, error):
                if made is not None:
                    add_output(connection, made)
            for table in (batch_lines, batch_chunks, batch_models):
                connection.execute(delete(table).where(table.c.batch == batch.number))
            return True

    def _move(
        self, connection: Connection, batch: Batch, to: Status, now_s: float, more: dict[str, Any]
    ) -> bool:
        mine = and_(
            batches.c.number == batch.number,
            batches.c.lease_owner == self._owner,
            batches.c.status.in_(origins(to)),
        )
        moved = {"status": to, f"{to}_s": now_s, **_NO_LEASE, **more}
        return bool(connection.execute(update(batches).where(mine).values(moved)).rowcount)

    # Chunks of its lines ------------------------------------------------------------------------

    def outlook(self, now_s: float) -> Outlook:
        """Whether there is something to do, and whether others do it."""
        with reading(self._engine) as connection:
            free = connection.execute(self._free(now_s).limit(1)).first()
            elsewhere = connection.execute(
                select(batch_chunks.c.batch)
                .where(
                    batch_chunks.c.lease_until_s >= now_s,
                    batch_chunks.c.lease_owner != self._owner,
                    batch_chunks.c.done.is_(False),
                )
                .limit(1)
            ).first()
        return Outlook(free is not None, elsewhere is not None)

    def claim_chunk(self, now_s: float) -> Claim | None:
        """A chunk that nobody works on, of a tenant that holds the fewest; of its oldest batch."""
        with reading(self._engine) as connection:
            first = func.min(batch_chunks.c.chunk).label("chunk")
            query = self._free(now_s).with_only_columns(
                batches.c.number, batches.c.tenant, first, maintain_column_froms=True
            )
            query = query.group_by(batches.c.number, batches.c.tenant).order_by(batches.c.number)
            rows = connection.execute(query).mappings().all()
            held = self._held_by_tenant(connection, now_s) if len(rows) > 1 else {}
        if not rows:
            return None
        row = min(rows, key=lambda each: (held.get(each["tenant"], 0), each["number"]))
        with writing(self._engine) as connection:
            batch = _batch(connection, row["number"])
            if batch.status is not Status.IN_PROGRESS:
                return None
            this = and_(
                batch_chunks.c.batch == row["number"],
                batch_chunks.c.chunk == row["chunk"],
                batch_chunks.c.done.is_(False),
                _unleased(now_s),
            )
            lease = {"lease_owner": self._owner, "lease_until_s": now_s + self.lease_s}
            if not connection.execute(update(batch_chunks).where(this).values(lease)).rowcount:
                return None
            return Claim(batch, _chunk(connection, row["number"], row["chunk"]))

    def _free(self, now_s: float) -> Any:
        joined = batch_chunks.join(batches, batches.c.number == batch_chunks.c.batch)
        return (
            select(batch_chunks.c.batch)
            .select_from(joined)
            .where(
                batches.c.status == Status.IN_PROGRESS,
                batches.c.expires_s > now_s,
                batch_chunks.c.done.is_(False),
                _unleased(now_s),
            )
        )

    def _held_by_tenant(self, connection: Connection, now_s: float) -> dict[str, int]:
        query = (
            select(batches.c.tenant, func.count())
            .join(batch_chunks, batches.c.number == batch_chunks.c.batch)
            .where(batch_chunks.c.done.is_(False), batch_chunks.c.lease_until_s >= now_s)
            .group_by(batches.c.tenant)
        )
        return {tenant: int(count) for tenant, count in connection.execute(query)}

    def renew(
        self, now_s: float, numbers: Collection[int], chunks: Collection[tuple[int, int]]
    ) -> dict[int, set[int]]:
        """Hold on to leases of this gateway: of batches by their numbers, of chunks by those of
        batch and chunk. What is not named runs out. See :meth:`held` for what is returned."""
        until = {"lease_until_s": now_s + self.lease_s}
        with writing(self._engine) as connection:
            if numbers:
                own = and_(batches.c.number.in_(numbers), batches.c.lease_owner == self._owner)
                connection.execute(update(batches).where(own).values(until))
            if chunks:
                own = and_(
                    tuple_(batch_chunks.c.batch, batch_chunks.c.chunk).in_(chunks),
                    batch_chunks.c.lease_owner == self._owner,
                    batch_chunks.c.done.is_(False),
                )
                connection.execute(update(batch_chunks).where(own).values(until))
        return self.held(now_s)

    def held(self, now_s: float) -> dict[int, set[int]]:
        """This gateway's chunks that are still to be computed, by the number of their batch. Those
        of a batch that has been cancelled, or whose time is over, are not among them."""
        query = (
            select(batch_chunks.c.batch, batch_chunks.c.chunk)
            .join(batches, batches.c.number == batch_chunks.c.batch)
            .where(
                batch_chunks.c.lease_owner == self._owner,
                batch_chunks.c.done.is_(False),
                batches.c.status == Status.IN_PROGRESS,
                batches.c.expires_s > now_s,
            )
        )
        found: dict[int, set[int]] = {}
        with reading(self._engine) as connection:
            for batch, chunk in connection.execute(query):
                found.setdefault(batch, set()).add(chunk)
        return found

    def leased(self) -> dict[int, Status]:
        """The batches that this gateway validates or puts together, and how they stand."""
        query = select(batches.c.number, batches.c.status).where(
            batches.c.lease_owner == self._owner
        )
        with reading(self._engine) as connection:
            return {number: Status(status) for number, status in connection.execute(query)}

    def release(self, batch: Batch, chunk: Chunk) -> None:
        """Let go of a chunk before its end."""
        own = and_(
            batch_chunks.c.batch == batch.number,
            batch_chunks.c.chunk == chunk.number,
            batch_chunks.c.lease_owner == self._owner,
        )
        with writing(self._engine) as connection:
            connection.execute(update(batch_chunks).where(own).values(_NO_LEASE))

    def release_batch(self, batch: Batch) -> None:
        """Let go of a batch before its work is done."""
        with writing(self._engine) as connection:
            own = and_(batches.c.number == batch.number, batches.c.lease_owner == self._owner)
            connection.execute(update(batches).where(own).values(_NO_LEASE))

    def chunk_done(self, batch: Batch, chunk: Chunk, now_s: float) -> None:
        """All lines of a chunk have their results. With the last chunk, the batch is to be put
        together."""
        with writing(self._engine) as connection:
            lock = update(batches).where(batches.c.number == batch.number)
            connection.execute(lock.values(failed=batches.c.failed))
            this = and_(batch_chunks.c.batch == batch.number, batch_chunks.c.chunk == chunk.number)
            connection.execute(update(batch_chunks).where(this).values(done=True, **_NO_LEASE))
            left = select(batch_chunks.c.chunk).where(
                batch_chunks.c.batch == batch.number, batch_chunks.c.done.is_(False)
            )
            if connection.execute(left.limit(1)).first() is not None:
                return
            all_done = update(batches).where(
                batches.c.number == batch.number, batches.c.status == Status.IN_PROGRESS
            )
            moved = {"status": Status.FINALIZING, "finalizing_s": now_s, "frozen": True}
            connection.execute(all_done.values(moved))

    def unfinished(self, batch: Batch) -> Iterator[Chunk]:
        """The chunks that have lines without a result."""
        last = -1
        while True:
            query = (
                select(batch_chunks)
                .where(
                    batch_chunks.c.batch == batch.number,
                    batch_chunks.c.done.is_(False),
                    batch_chunks.c.chunk > last,
                )
                .order_by(batch_chunks.c.chunk)
                .limit(1)
            )
            with reading(self._engine) as connection:
                row = connection.execute(query).mappings().first()
            if row is None:
                return
            yield _chunk_of(row)
            last = row["chunk"]


def _insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    for start in range(0, len(rows), _INSERTED_AT_ONCE):
        connection.execute(insert(table), rows[start : start + _INSERTED_AT_ONCE])


def _model_row(batch: int, model: str, share: Share) -> dict[str, Any]:
    none = dict.fromkeys(("done", "prompt_tokens", "cached_tokens", "output_tokens"), 0)
    return {"batch": batch, "model": model, "lines": share.lines, "bytes": share.bytes, **none}


def _unleased(now_s: float) -> Any:
    return or_(batch_chunks.c.lease_until_s.is_(None), batch_chunks.c.lease_until_s < now_s)


def _batch(connection: Connection, number: int) -> Batch:
    query = select(batches).where(batches.c.number == number)
    return batch_of(connection.execute(query).mappings().one())


def _chunk(connection: Connection, batch: int, chunk: int) -> Chunk:
    query = select(batch_chunks).where(batch_chunks.c.batch == batch, batch_chunks.c.chunk == chunk)
    return _chunk_of(connection.execute(query).mappings().one())


def _chunk_of(row: Any) -> Chunk:
    return Chunk(
        row["chunk"],
        row["first_line"],
        row["last_line"],
        row["requests"],
        row["offset"],
        row["bytes"],
    )
