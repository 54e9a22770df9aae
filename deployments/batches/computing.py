"""Running the lines of one chunk, each through the in-process door of the request path."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import orjson

from deployments.batches.files import file_path
from deployments.batches.jobs import Batch
from deployments.batches.lines import Line, LineError, LineSplitter, RawLine, named_model, read_line
from deployments.batches.recorder import Recorder
from deployments.batches.results import Result, ResultTable
from deployments.batches.storage import Storage
from deployments.batches.threads import Threads
from deployments.batches.window import Place, Window
from deployments.batches.work import Claim
from deployments.gateway.accounts import Later
from deployments.gateway.dialects import DIALECTS, Dialect, Writer
from deployments.gateway.handle import PRIORITY_HEADER, Gateway
from deployments.gateway.outputs import Counts, Output
from deployments.gateway.request import MemoryDoor
from deployments.gateway.sink import Answer, Closing, Headers, MemorySink
from weir.errors import InternalError, WeirError
from weir.tenancy import Caller

#: A line that the platform cannot take now is tried again after that, twice as late each time.
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
#: So often a fault of the platform's own may hit a line.
_FAULTS = 3


@dataclass(frozen=True, slots=True)
class Computing:
    """What running lines needs. ``max_line_bytes``: no line of a validated input is longer."""

    gateway: Gateway
    storage: Storage
    results: ResultTable
    recorder: Recorder
    window: Window
    threads: Threads
    priority_class: str
    max_line_bytes: int


class LineSink(MemorySink):
    """Keeps a line's answer; ``flow`` is called with its first output."""

    def __init__(self, flow: Callable[[], None]) -> None:
        super().__init__()
        self._flow = flow

    def begin(
        self, writer: Writer, choices: int, stream: bool, headers: Headers, closing: Closing
    ) -> Answer:
        answer = super().begin(writer, choices, False, headers, closing)
        return _Watched(answer, self._flow)


class _Watched:
    def __init__(self, answer: Answer, flow: Callable[[], None]) -> None:
        self._answer = answer
        self._flow: Callable[[], None] | None = flow

    async def put(self, choice: int, output: Output) -> None:
        if self._flow is not None:
            self._flow()
            self._flow = None
        await self._answer.put(choice, output)

    async def end(self, counts: Counts) -> None:
        await self._answer.end(counts)


class ChunkRun:
    """One chunk of ``batch``, by the caller who made it. ``left``: lines that have not begun;
    ``all_begun`` is called when there are none left."""

    def __init__(
        self, computing: Computing, claim: Claim, caller: Caller, all_begun: Callable[[], None]
    ) -> None:
        self._with = computing
        self.batch = claim.batch
        self._claim = claim
        self._caller = caller
        self._all_begun = all_begun
        self.left = claim.chunk.requests
        self._dialect: Dialect = DIALECTS.batchable[claim.batch.endpoint]

    async def run(self) -> None:
        """All lines that have no result yet, until each is published. Cancelled, it drops what is
        under way.

        Raises:
            NotTakenError: the batch takes no more results.
            OverloadedError: the storage or the database is away.
        """
        batch, chunk, needs = self._claim.batch, self._claim.chunk, self._with
        known = await needs.threads.run(needs.results.recorded, batch, chunk)
        lines = deque(await needs.threads.run(self._read))
        published: list[asyncio.Future[bool]] = []
        async with asyncio.TaskGroup() as group:
            while lines:
                line = lines.popleft()
                if line.blank:
                    continue
                if line.number not in known:
                    place = await needs.window.enter()
                    group.create_task(self._line(line, place, published))
                self.left -= 1
            self._all_begun()
        await asyncio.gather(*published)

    def _read(self) -> Sequence[RawLine]:
        batch, chunk = self._claim.batch, self._claim.chunk
        end = chunk.offset + chunk.bytes
        raw = self._with.storage.read(file_path(batch.input_file_id), chunk.offset, end)
        return split(raw, chunk.first_line, chunk.offset, self._with.max_line_bytes)

    async def _line(
        self, raw: RawLine, place: Place, published: list[asyncio.Future[bool]]
    ) -> None:
        try:
            line = read_line(raw.raw or b"")
        except LineError as error:
            # It was good when the batch was validated: the storage has another content now.
            place.leave()
            told = f"Line {raw.number} of the input has changed: {error.message}"
            raise InternalError(told) from None
        try:
            sink, place, later = await self._answered(raw, line, place)
        except BaseException:
            place.leave()
            raise
        batch, counts = self._claim.batch, sink.counts
        result = Result(
            raw.number,
            0,
            0,
            sink.error is not None,
            counts.prompt_tokens,
            counts.cached_tokens,
            counts.output_tokens,
            named_model(line),
        )
        text = result_text(batch, raw.number, line.custom_id, sink, self._dialect)
        done = self._with.recorder.add(batch.number, batch.id, result, text)
        done.add_done_callback(partial(_settle, later))
        published.append(done)
        try:
            if self._with.recorder.crowded:
                await asyncio.wait({done})
        finally:
            place.leave()

    async def _answered(
        self, raw: RawLine, line: Line, place: Place
    ) -> tuple[LineSink, Place, Later]:
        """The line's answer, or an error that will not pass by itself; the place that is held now,
        and what is to be settled when its result is published. While a line waits to be tried again
        it holds no place."""
        wait_s, faults = _FIRST_WAIT_S, 0
        while True:
            sink, later = LineSink(place.flow), Later()
            try:
                await self._with.gateway.handle(self._dialect, self._door(raw, line, later), sink)
            except BaseException:
                later.settle(True)  # it has no result, and was used all the same
                raise
            finally:
                place.leave()
            error = sink.error
            faults += isinstance(error, InternalError)
            if error is None or not passes(error, faults):
                self._count("completed" if error is None else "failed")
                return sink, place, later
            later.settle(True)
            self._count("put off")
            await asyncio.sleep(max(wait_s, min(error.retry_after_s or 0.0, _LONGEST_WAIT_S)))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            place = await self._with.window.enter()

    def _count(self, outcome: str) -> None:
        metrics = self._with.gateway.metrics
        metrics.of(metrics.batch_lines, self._caller.tenant.id, outcome).inc()

    def _door(self, raw: RawLine, line: Line, later: Later) -> MemoryDoor:
        body = bytes(line.body)
        headers = {
            "x-request-id": f"{self._claim.batch.id}-{raw.number}",
            "content-length": str(len(body)),
            PRIORITY_HEADER: self._with.priority_class,
        }
        return MemoryDoor(body, headers, self._caller, self._claim.batch.id, later)


def _settle(later: Later, published: asyncio.Future[bool]) -> None:
    """A result counts once. What a batch takes no more was used all the same."""
    known = not published.cancelled() and published.exception() is None
    later.settle(published.result() if known else True)


def split(raw: bytes, first_line: int, offset: int, max_line_bytes: int) -> list[RawLine]:
    """The lines of a piece of the input."""
    splitter = LineSplitter(max_line_bytes, first_line, offset)
    return [*splitter.feed(raw), *splitter.end()]


def passes(error: WeirError, faults: int) -> bool:
    """Whether a line is tried again after this error. ``faults``: so often the platform's own fault
    has hit it."""
    if isinstance(error, InternalError):
        return faults < _FAULTS
    return error.retryable and not error.hopeless


def result_text(
    batch: Batch, number: int, custom_id: str, sink: MemorySink, dialect: Dialect
) -> bytes:
    """What the output, or the error file, has of a line."""
    body = dialect.error_body(sink.error) if sink.error is not None else orjson.Fragment(sink.body)
    response = {
        "status_code": sink.status,
        "request_id": f"{batch.id}-{number}",
        "body": body,
    }
    return line_text(batch, number, custom_id, response, None)


def line_text(
    batch: Batch,
    number: int,
    custom_id: str,
    response: dict[str, object] | None,
    error: dict[str, str] | None,
) -> bytes:
    """A line of the output or the error file."""
    told = {
        "id": f"batch_req_{batch.id.rpartition('_')[2]}-{number}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return orjson.dumps(told) + b"\n"
