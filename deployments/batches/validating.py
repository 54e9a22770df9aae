"""Before a line of a batch runs, all of them are looked at: a batch with a line that cannot run is
refused whole, with the lines that are wrong."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.batches.files import StoredFile
from deployments.batches.lines import LineError, LineSplitter, RawLine, read_line
from deployments.batches.storage import BLOCK_BYTES, Storage
from deployments.batches.threads import Threads
from deployments.batches.work import Chunk, Share
from deployments.gateway.dialects import DIALECTS
from deployments.gateway.handle import Gateway
from weir.errors import WeirError
from weir.tenancy import Caller

#: More errors than that help nobody.
MAX_ERRORS = 100
_CHUNK_BYTES = 1024 * 1024
#: Lines are checked so many bytes at a time; in between, other work has the interpreter.
_SLICE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class LineLimits:
    """What an input may be."""

    max_lines: int
    max_line_bytes: int
    chunk_lines: int


@dataclass(slots=True)
class Findings:
    """What is known of the lines so far. ``models``: what of them is for which model."""

    chunks: list[Chunk] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, Share] = field(default_factory=dict)
    requests: int = 0


class Validation:
    """Of one input, whose lines are for ``endpoint`` and are asked by ``caller``."""

    def __init__(self, gateway: Gateway, limits: LineLimits, endpoint: str, caller: Caller) -> None:
        self._gateway = gateway
        self._limits = limits
        self._endpoint = endpoint
        self._dialect = DIALECTS.batchable[endpoint]
        self._caller = caller
        self._seen: set[bytes] = set()
        self._open: list[RawLine] = []
        self.found = Findings()

    async def run(self, file: StoredFile, storage: Storage, threads: Threads) -> Findings:
        """Look at the whole input.

        Raises:
            StorageAwayError: it cannot be read.
        """
        loop = asyncio.get_running_loop()
        splitter = LineSplitter(self._limits.max_line_bytes)
        for start in range(0, file.bytes, BLOCK_BYTES):
            end = min(file.bytes, start + BLOCK_BYTES)
            block = await threads.run(storage.read, file.path, start, end)
            lines = [*splitter.feed(block), *(splitter.end() if end == file.bytes else ())]
            for piece in slices(lines):
                begun_s = loop.time()
                await threads.run(self.look, piece)
                # A thread that works takes turns with the event loop: it gets half of the time.
                await asyncio.sleep(loop.time() - begun_s)
            if self._over():
                break
        self._close_chunk()
        if not self.found.requests and not self.found.errors:
            self._complain(None, "empty_file", "The input file has no request.")
        return self.found

    def look(self, lines: Sequence[RawLine]) -> None:
        """Look at some lines, the next ones."""
        for raw in lines:
            if self._over():
                return
            if not raw.blank:
                self._look_at(raw)
            self._open.append(raw)
            held = sum(not line.blank for line in self._open)
            size = sum(line.size for line in self._open)
            if held >= self._limits.chunk_lines or size >= _CHUNK_BYTES:
                self._close_chunk()

    def _over(self) -> bool:
        too_many = self.found.requests > self._limits.max_lines
        return too_many or len(self.found.errors) >= MAX_ERRORS

    def _look_at(self, raw: RawLine) -> None:
        self.found.requests += 1
        if self.found.requests > self._limits.max_lines:
            told = f"At most {self._limits.max_lines} requests are accepted in a batch."
            self._complain(raw.number, "too_many_requests", told)
            return
        try:
            if raw.raw is None:
                most = self._limits.max_line_bytes
                raise LineError("line_too_long", f"This line is longer than {most} bytes.")
            self._check(raw.raw)
        except LineError as error:
            self._complain(raw.number, error.code, error.message, error.param)
        except WeirError as error:
            param = f"body.{error.param}" if error.param else "body"
            self._complain(raw.number, error.code or error.type, error.message, param)

    def _check(self, raw: bytes) -> None:
        """Raises:
        LineError: the line cannot be used.
        WeirError: its body cannot.
        """
        line = read_line(raw)
        digest = hashlib.blake2b(line.custom_id.encode(), digest_size=16).digest()
        if digest in self._seen:
            told = f"custom_id: {line.custom_id[:80]!r} has been used before."
            raise LineError("duplicate_custom_id", told, "custom_id")
        self._seen.add(digest)
        if line.url != self._endpoint:
            told = f"url: {line.url[:80]!r} is not the batch's endpoint, {self._endpoint!r}."
            raise LineError("invalid_url", told, "url")
        gateway = self._gateway
        body = self._dialect.parse(bytes(line.body), gateway.intake.unknown())
        if getattr(body, "stream", False):
            raise LineError("invalid_request", "stream: not possible in a batch.", "body.stream")
        if getattr(getattr(body, "asked", None), "background", False):
            told = "background: not possible in a batch."
            raise LineError("invalid_request", told, "body.background")
        model, _ = gateway.find_model(body.model, self._caller)
        if self._dialect.suited(model.tasks) is None:
            told = f"The model {body.model!r} does not support {self._dialect.name}."
            raise LineError("unsupported_operation", told, "body.model")
        share = self.found.models.get(body.model, Share())
        self.found.models[body.model] = Share(share.lines + 1, share.bytes + len(raw))

    def _complain(
        self, line: int | None, code: str, message: str, param: str | None = None
    ) -> None:
        told = {"code": code, "line": line, "message": message, "param": param}
        self.found.errors.append(told)

    def _close_chunk(self) -> None:
        lines, self._open = self._open, []
        requests = sum(not line.blank for line in lines)
        if requests:
            self.found.chunks.append(
                Chunk(
                    len(self.found.chunks),
                    lines[0].number,
                    lines[-1].number,
                    requests,
                    lines[0].offset,
                    sum(line.size for line in lines),
                )
            )


def slices(lines: Sequence[RawLine]) -> list[list[RawLine]]:
    """The same lines, some at a time."""
    made: list[list[RawLine]] = []
    size = _SLICE_BYTES
    for line in lines:
        if size >= _SLICE_BYTES:
            made.append([])
            size = 0
        made[-1].append(line)
        size += line.size
    return made
