"""The life of a job, step by step, in any order: by two gateways whose leases run out."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import func, select

from deployments.batches.files import BATCH, FileTable, StoredFile
from deployments.batches.finishing import Finisher
from deployments.batches.jobs import Batch, BatchTable, NewBatch
from deployments.batches.life import ACTIVE, FOLLOWERS, Status, origins
from deployments.batches.recorder import part_path
from deployments.batches.results import Result, ResultTable
from deployments.batches.storage import open_storage
from deployments.batches.tables import batch_lines, file_usage, files
from deployments.batches.work import Chunk, WorkTable
from weir.database import migrate, open_database, reading
from weir.errors import ConflictError
from weir.settings.batches import FilesSettings

LEASE_S = 10.0
LINES = 7
INPUT = b"".join(
    b'{"custom_id":"c%d","method":"POST","url":"/v1/x","body":{}}\n' % i
    for i in range(1, LINES + 1)
)


@pytest.mark.parametrize("status", Status)
def test_a_status_ends_or_has_followers(status: Status) -> None:
    assert (status in ACTIVE) != status.ended
    for follower in FOLLOWERS[status]:
        assert status in origins(follower)


def chunks() -> list[Chunk]:
    size = len(INPUT) // LINES
    return [
        Chunk(n, first, last, last - first + 1, size * (first - 1), size * (last - first + 1))
        for n, (first, last) in enumerate(((1, 3), (4, 6), (7, 7)))
    ]


class Life(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.now_s = 1000.0
        engine = open_database("sqlite://")
        migrate(engine)
        self.engine = engine
        self.storage = open_storage(f"memory://{uuid.uuid4().hex}")
        self.files = FileTable(engine, FilesSettings())
        self.batches = BatchTable(engine)
        self.results = ResultTable(engine)
        self.work = {owner: WorkTable(engine, owner, LEASE_S) for owner in "ab"}
        self.held: list[tuple[str, Batch, Chunk]] = []
        self.jobs: list[tuple[str, Batch]] = []
        made = StoredFile("file-input", "t", BATCH, "x", len(INPUT), self.now_s, None)
        self.files.reserve(made)
        with self.storage.create(made.path) as content:
            content.write(INPUT)
        self.files.publish(made)
        new = NewBatch("batch_1", "t", "k", "/v1/x", made.id, "24h", self.now_s, self.now_s + 100)
        self.batches.create(new, 1)
        self.last = self.batch

    @property
    def batch(self) -> Batch:
        return self.batches.find("t", "batch_1")

    owners = st.sampled_from("ab")

    @rule(seconds=st.sampled_from((1.0, LEASE_S + 1, 60.0)))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(owner=owners)
    def claim_batch(self, owner: str) -> None:
        claimed = self.work[owner].claim_batch(self.now_s)
        if claimed is not None:
            self.jobs.append((owner, claimed))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), good=st.booleans())
    def work_on_batch(self, data: Any, good: bool) -> None:
        owner, batch = self.jobs.pop(data.draw(st.integers(0, len(self.jobs) - 1)))
        work = self.work[owner]
        if batch.status is not Status.VALIDATING or batch.expires_s <= self.now_s:
            finisher = Finisher(self.storage, work, self.results, 3600.0, 1000)
            finisher.finish(batch, self.now_s)
        elif good:
            work.begin(batch, chunks(), {}, self.now_s)
        else:
            work.fail(batch, [{"code": "x", "line": 1, "message": "", "param": None}], self.now_s)

    @rule(owner=owners)
    def claim_chunk(self, owner: str) -> None:
        claim = self.work[owner].claim_chunk(self.now_s)
        if claim is not None:
            self.held.append((owner, claim.batch, claim.chunk))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), failed=st.booleans())
    def publish_some(self, data: Any, failed: bool) -> None:
        """Also by who has lost the lease: what it computed may be published still, once."""
        owner, batch, chunk = data.draw(st.sampled_from(self.held))
        lines = st.integers(chunk.first_line, chunk.last_line)
        chosen = data.draw(st.lists(lines, min_size=1, unique=True))
        self._publish(owner, batch, chosen, failed)

    def _publish(self, owner: str, batch: Batch, lines: list[int], failed: bool) -> bool:
        text, results = b"", []
        for line in lines:
            told = json.dumps({"custom_id": f"c{line}", "by": owner}).encode() + b"\n"
            results.append(Result(line, len(text), len(told), failed, 3, 1, 2))
            text += told
        part = uuid.uuid4().hex
        with self.storage.create(part_path(batch.id, part)) as content:
            content.write(text)
        return self.results.record(batch.number, part, results) is not None

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def end_chunk(self, data: Any) -> None:
        owner, batch, chunk = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        known = self.results.recorded(batch, chunk)
        left = [n for n in range(chunk.first_line, chunk.last_line + 1) if n not in known]
        if not left or self._publish(owner, batch, left, False):
            self.work[owner].chunk_done(batch, chunk, self.now_s)
        else:
            self.work[owner].release(batch, chunk)

    @rule()
    def cancel(self) -> None:
        before = self.batch.status
        try:
            self.batches.cancel("t", "batch_1", self.now_s)
        except ConflictError:
            assert before.ended

    @rule(owner=owners)
    def renew(self, owner: str) -> None:
        own = [(b.number, chunk.number) for who, b, chunk in self.held if who == owner]
        numbers = [batch.number for who, batch in self.jobs if who == owner]
        held = self.work[owner].renew(self.now_s, numbers, own)
        self.held = [
            (who, batch, chunk)
            for who, batch, chunk in self.held
            if who != owner or chunk.number in held.get(batch.number, ())
        ]

    @invariant()
    def the_status_moves_forward(self) -> None:
        batch = self.batch
        if batch.status is not self.last.status:
            reachable, todo = set(), [self.last.status]
            while todo:
                for follower in FOLLOWERS[todo.pop()] - reachable:
                    reachable.add(follower)
                    todo.append(follower)
            assert batch.status in reachable
        assert batch.completed >= self.last.completed
        assert batch.failed >= self.last.failed
        self.last = batch

    @invariant()
    def counts_are_right(self) -> None:
        batch = self.batch
        assert batch.completed + batch.failed <= batch.total or batch.total == 0
        if not batch.status.ended:
            with reading(self.engine) as connection:
                rows = connection.execute(select(func.count()).select_from(batch_lines)).scalar()
            assert batch.completed + batch.failed == rows
            assert batch.prompt_tokens == 3 * rows
            return
        output = self._lines(batch.output_file_id)
        error = self._lines(batch.error_file_id)
        assert len(output) == batch.completed
        assert len(error) == batch.failed
        ids = [line["custom_id"] for line in (*output, *error)]
        assert len(ids) == len(set(ids))
        if batch.status is Status.COMPLETED:
            assert len(ids) == LINES
            assert not [line for line in error if line.get("error")]
        if batch.status is Status.EXPIRED and batch.total:
            assert len(ids) == LINES

    @invariant()
    def usage_is_right(self) -> None:
        with reading(self.engine) as connection:
            counted = connection.execute(
                select(func.count(), func.sum(files.c.bytes)).select_from(files)
            ).one()
            told = connection.execute(select(file_usage.c.files, file_usage.c.bytes)).one()
        assert tuple(counted) == tuple(told)

    def _lines(self, file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        file = self.files.find("t", file_id, self.now_s)
        content = self.storage.read(file.path, 0, file.bytes)
        return [json.loads(line) for line in content.splitlines()]

    def teardown(self) -> None:
        """Whatever happened, two gateways that work on bring the job to its end."""
        if not hasattr(self, "engine"):
            return
        for _ in range(20):
            if self.batch.status.ended:
                break
            self.now_s += LEASE_S + 1
            work = self.work["a"]
            claimed = work.claim_batch(self.now_s)
            if claimed is not None:
                if claimed.status is Status.VALIDATING and claimed.expires_s > self.now_s:
                    work.begin(claimed, chunks(), {}, self.now_s)
                else:
                    finisher = Finisher(self.storage, work, self.results, 3600.0, 1000)
                    finisher.finish(claimed, self.now_s)
                continue
            claim = work.claim_chunk(self.now_s)
            if claim is not None:
                self.held = [("a", claim.batch, claim.chunk)]
                known = self.results.recorded(claim.batch, claim.chunk)
                first, last = claim.chunk.first_line, claim.chunk.last_line
                left = [n for n in range(first, last + 1) if n not in known]
                if not left or self._publish("a", claim.batch, left, False):
                    work.chunk_done(claim.batch, claim.chunk, self.now_s)
        assert self.batch.status.ended
        self.counts_are_right()
        self.usage_is_right()
        self.engine.dispose()


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
