"""The end of a batch: its parts become an output file and an error file."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from deployments.batches.computing import line_text, split
from deployments.batches.files import BATCH_OUTPUT, StoredFile, file_path
from deployments.batches.jobs import Batch
from deployments.batches.life import Status
from deployments.batches.lines import LineError, read_line
from deployments.batches.recorder import part_path
from deployments.batches.results import ResultTable
from deployments.batches.storage import NewContent, Storage
from deployments.batches.work import WorkTable
from weir.errors import StorageAwayError

_LOG = logging.getLogger("weir.batches")
_EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}
_CANCELLED = {
    "code": "batch_cancelled",
    "message": "The batch was cancelled before this request was executed.",
}


@dataclass(frozen=True, slots=True)
class Finisher:
    """Everything here may be done twice, by two gateways even: the files' names follow from the
    batch's, their contents from rows that no longer change, and the last step is one transaction.
    Nothing here runs on an event loop. ``ttl_s``: how long outputs are kept that nobody asked to be
    kept otherwise."""

    storage: Storage
    work: WorkTable
    results: ResultTable
    ttl_s: float
    max_line_bytes: int

    def finish(self, batch: Batch, now_s: float) -> Status | None:
        """Put a batch together and end it; how it ended. None: it was not this gateway's any more.

        Raises:
            OverloadedError: the storage or the database is away.
        """
        not_computed = batch.total - batch.completed - batch.failed
        status = Status.EXPIRED if not_computed else Status.COMPLETED
        if batch.status is Status.CANCELLING:
            status = Status.CANCELLED
        elif batch.status is Status.VALIDATING:
            status = Status.EXPIRED
        # OpenAI's clients are told of lines that were too late, Anthropic's of all.
        tells = status is Status.EXPIRED or batch.family == "anthropic"
        told = not_computed if tells else 0
        reason = _EXPIRED if status is Status.EXPIRED else _CANCELLED
        output, error = self._assemble(batch, now_s, reason if told else None)
        if not self.work.finish(batch, status, output, error, not_computed, told, now_s):
            return None
        with suppress(StorageAwayError):
            self.storage.remove_folder(f"batches/{batch.id}")
        return status

    def _assemble(
        self, batch: Batch, now_s: float, reason: dict[str, str] | None
    ) -> tuple[StoredFile | None, StoredFile | None]:
        """The output and the error file, each where there is something in it; not published yet.
        ``reason``: why lines were not computed, where they are told."""
        with ExitStack() as stack:
            files = []
            for kind, there in (("output", batch.completed), ("error", batch.failed or reason)):
                content = None
                if there:
                    path = file_path(_file_id(batch, kind))
                    content = stack.enter_context(self.storage.create(path))
                files.append(content)
            output, error = files
            self._copy(batch, output, error)
            if reason is not None and error is not None:
                for text in self._other_lines(batch, reason):
                    error.write(text)
        return self._file(batch, "output", output, now_s), self._file(batch, "error", error, now_s)

    def _copy(self, batch: Batch, output: NewContent | None, error: NewContent | None) -> None:
        for part in self.results.parts(batch):
            results = self.results.results(batch, part)
            end = results[-1].offset + results[-1].bytes
            text = self.storage.read(part_path(batch.id, part), 0, end)
            for result in results:
                into = error if result.failed else output
                assert into is not None
                into.write(text[result.offset : result.offset + result.bytes])

    def _other_lines(self, batch: Batch, reason: dict[str, str]) -> Iterator[bytes]:
        """The lines without a result."""
        for chunk in self.work.unfinished(batch):
            known = self.results.recorded(batch, chunk)
            try:
                end = chunk.offset + chunk.bytes
                raw = self.storage.read(file_path(batch.input_file_id), chunk.offset, end)
            except FileNotFoundError:
                _LOG.error("the input of a batch is gone", extra={"batch": batch.id})
                return
            for line in split(raw, chunk.first_line, chunk.offset, self.max_line_bytes):
                if line.blank or line.number in known:
                    continue
                with suppress(LineError):
                    custom_id = read_line(line.raw or b"").custom_id
                    yield line_text(batch, line.number, custom_id, None, reason)

    def _file(
        self, batch: Batch, kind: str, content: NewContent | None, now_s: float
    ) -> StoredFile | None:
        if content is None:
            return None
        return StoredFile(
            _file_id(batch, kind),
            batch.tenant,
            BATCH_OUTPUT,
            f"{batch.id}_{kind}.jsonl",
            content.size,
            now_s,
            now_s + (batch.output_ttl_s or self.ttl_s),
        )


def _file_id(batch: Batch, kind: str) -> str:
    digest = hashlib.sha256(f"{batch.id}/{kind}".encode()).hexdigest()
    return f"file-{digest[:24]}"
