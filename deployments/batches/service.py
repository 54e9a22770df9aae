"""Files and batches, for whoever asks from an event loop: the pages, and tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from deployments.batches.computing import Computing
from deployments.batches.files import BATCH, FilePage, FileTable, StoredFile
from deployments.batches.finishing import Finisher
from deployments.batches.jobs import Batch, BatchTable, NewBatch
from deployments.batches.recorder import Recorder
from deployments.batches.results import ResultTable
from deployments.batches.runner import Runner, Running
from deployments.batches.storage import BLOCK_BYTES, Storage
from deployments.batches.threads import Threads
from deployments.batches.uploads import FORM_BYTES, FormReader, receive, too_large
from deployments.batches.validating import Findings, LineLimits, Validation
from deployments.batches.window import Window
from deployments.batches.work import WorkTable
from deployments.gateway.dialects import DIALECTS
from deployments.gateway.handle import Gateway
from weir.errors import BadRequestError, NotFoundError, PermissionDeniedError, RateLimitError
from weir.settings import Settings
from weir.settings.batches import class_of_batches, window_s
from weir.tenancy import Caller, LiveDirectory, Tenant

_LEAST_TTL_S, _MOST_TTL_S = 3600, 30 * 86_400
#: What a batch's id begins with, by whose API made it.
_PREFIXES = {"openai": "batch", "anthropic": "msgbatch"}
#: Under way at a time in one gateway: of all tenants, and of one.
_UPLOADS, _TENANT_UPLOADS = 16, 4
#: Around a line's body: the rest of the line.
_ENVELOPE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks of a new batch."""

    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: Mapping[str, str] | None = None
    output_ttl_s: float | None = None


class Batches:
    """Of one gateway. Needs a running event loop. Everything of a tenant is found by its tenant: to
    others it does not exist."""

    def __init__(
        self,
        gateway: Gateway,
        settings: Settings,
        engine: Engine,
        storage: Storage,
        traffic: Callable[[], int],
    ) -> None:
        self.gateway = gateway
        self._settings = settings
        self._storage = storage
        self.threads = Threads()
        self._run = self.threads.run
        self._limits = LineLimits(
            settings.batches.max_lines,
            settings.server.max_body_bytes + _ENVELOPE_BYTES,
            settings.batches.chunk_lines,
        )
        self._class = class_of_batches(settings.batches, gateway.parts.classes)
        self._uploads: Counter[str] = Counter()
        self._files = FileTable(engine, settings.files)
        self._batches = BatchTable(engine)
        self._now_s = gateway.parts.wall_clock
        self._ids = gateway.parts.ids
        self.runner = self._build_runner(engine, traffic)

    def _build_runner(self, engine: Engine, traffic: Callable[[], int]) -> Runner:
        gateway, most = self.gateway, self._settings.batches
        work = WorkTable(engine, f"gateway-{self._ids()}", most.lease_s)
        results = ResultTable(engine)
        limits = self._limits
        ttl_s = self._settings.files.ttl_s
        processes = self._settings.gateway.processes
        window = Window(max(1, most.max_lines_in_flight // processes))
        gateway.metrics.batch_lines_in_flight.set_function(lambda: window.held)
        computing = Computing(
            gateway,
            self._storage,
            results,
            Recorder(self._storage, results, self.threads, self._ids),
            window,
            self.threads,
            self._class,
            limits.max_line_bytes,
        )
        return Runner(
            Running(
                computing,
                work,
                self._batches,
                self._files,
                Finisher(self._storage, work, results, ttl_s, limits.max_line_bytes),
                limits,
                callers_in(gateway.directory, gateway.parts.wall_clock),
                traffic,
                gateway.parts.wall_clock,
            )
        )

    async def aclose(self) -> None:
        """Hand over what runs here."""
        await self.runner.aclose()
        self.threads.close()

    # Files --------------------------------------------------------------------------------------

    async def upload(
        self,
        tenant: Tenant,
        content_type: str | None,
        announced_bytes: int | None,
        body: AsyncIterator[bytes],
    ) -> StoredFile:
        """Keep a file. ``announced_bytes``: the length of the whole body, as the client says.

        Raises:
            BadRequestError: it is no form, or not the right one.
            BodyTooLargeError: the file is too large.
            RequestTimeoutError: the client went silent.
            RateLimitError: too many uploads are under way.
            StorageFullError: the tenant keeps as much as it may.
            OverloadedError: the database is away.
            StorageAwayError: the storage is.
        """
        reader = FormReader(content_type)
        most = self._settings.files.max_file_bytes
        if announced_bytes is not None and announced_bytes > most + FORM_BYTES:
            raise too_large(most)
        reserved = min(most, announced_bytes if announced_bytes is not None else most)
        with self._uploading(tenant):
            made = StoredFile(
                f"file-{self._ids()}", tenant.id, BATCH, "", reserved, self._now_s(), None
            )
            await self._run(self._files.reserve, made)
            try:
                made = await self._receive(made, reader, body)
                await self._run(self._files.publish, made)
            except BaseException:
                await self._run(self._files.give_up, made.id)
                await self._run(self._storage.remove, made.path)
                raise
        return made

    @contextmanager
    def _uploading(self, tenant: Tenant) -> Iterator[None]:
        """Serve reads a body whether or not anybody takes it, so that uploads must not wait."""
        if self._uploads[tenant.id] >= _TENANT_UPLOADS or self._uploads.total() >= _UPLOADS:
            raise RateLimitError("Too many uploads are under way.", retry_after_s=2.0)
        self._uploads[tenant.id] += 1
        try:
            yield
        finally:
            self._uploads[tenant.id] -= 1
            if not self._uploads[tenant.id]:
                del self._uploads[tenant.id]

    async def _receive(
        self, made: StoredFile, reader: FormReader, body: AsyncIterator[bytes]
    ) -> StoredFile:
        """The file as it is when its content is in the storage."""
        most = self._settings.files.max_file_bytes
        content = await self._run(self._storage.begin, made.path)
        try:
            form = await receive(body, reader, content, most, self.threads)
            ttl_s = _ttl_s(form.fields) or self._settings.files.ttl_s
            _require_purpose(form.fields.get("purpose"))
            await self._run(content.commit)
        except BaseException:
            await self._run(content.discard)
            raise
        return replace(
            made,
            filename=form.filename or "upload",
            bytes=content.size,
            expires_s=made.created_s + ttl_s,
        )

    async def files(self, tenant: Tenant, page: FilePage) -> tuple[list[StoredFile], bool]:
        """Some of the tenant's files, and whether there are more."""
        return await self._run(self._files.page, tenant.id, page, self._now_s())

    async def file(self, tenant: Tenant, file_id: str) -> StoredFile:
        """A file of the tenant.

        Raises:
            NotFoundError: it has none of that id.
        """
        return await self._run(self._files.find, tenant.id, file_id, self._now_s())

    async def content(self, file: StoredFile, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes of a file from ``start`` to before ``end``, piece by piece.

        Raises:
            StorageAwayError: they cannot be read.
        """
        while start < end:
            stop = min(end, start + BLOCK_BYTES)
            yield await self._run(self._storage.read, file.path, start, stop)
            start = stop

    async def delete_file(self, tenant: Tenant, file_id: str) -> None:
        """Forget a file.

        Raises:
            NotFoundError: the tenant has none of that id.
            FileInUseError: a batch reads it.
        """
        file = await self._run(self._files.delete, tenant.id, file_id, self._now_s())
        await self._run(self._storage.remove, file.path)

    async def keep(self, tenant: Tenant, filename: str, content: bytes) -> StoredFile:
        """Keep a file whose content is here already.

        Raises:
            BodyTooLargeError: it is too large.
            StorageFullError: the tenant keeps as much as it may.
        """
        most = self._settings.files
        if len(content) > most.max_file_bytes:
            raise too_large(most.max_file_bytes)
        now_s = self._now_s()
        file_id, expires_s = f"file-{self._ids()}", now_s + most.ttl_s
        made = StoredFile(file_id, tenant.id, BATCH, filename, len(content), now_s, expires_s)
        await self._run(self._files.reserve, made)
        try:
            await self._run(self._storage.put, made.path, content)
            await self._run(self._files.publish, made)
        except BaseException:
            await self._run(self._files.give_up, made.id)
            await self._run(self._storage.remove, made.path)
            raise
        return made

    async def look_at(self, caller: Caller, endpoint: str, file: StoredFile) -> Findings:
        """What is wrong with the lines of an input."""
        validation = Validation(self.gateway, self._limits, endpoint, caller)
        return await validation.run(file, self._storage, self.threads)

    # Batches ------------------------------------------------------------------------------------

    async def create(self, caller: Caller, asked: Asked, family: str = "openai") -> Batch:
        """Begin a batch. ``family``: whose API asks.

        Raises:
            BadRequestError: something in ``asked`` cannot be so; ``param`` names it.
            PermissionDeniedError: the tenant or the key may not do that.
            RateLimitError: the tenant has as many batches under way as it may.
        """
        self._check(caller, asked)
        now_s = self._now_s()
        made = NewBatch(
            f"{_PREFIXES[family]}_{self._ids()}",
            caller.tenant.id,
            caller.key.id,
            asked.endpoint,
            asked.input_file_id,
            asked.completion_window,
            now_s,
            now_s + window_s(asked.completion_window),
            asked.metadata,
            asked.output_ttl_s,
            family,
        )
        most = self._settings.batches.max_active_per_tenant
        batch = await self._run(self._batches.create, made, most)
        self.runner.wake()
        return batch

    def _check(self, caller: Caller, asked: Asked) -> None:
        dialect = DIALECTS.batchable.get(asked.endpoint)
        if dialect is None:
            known = ", ".join(DIALECTS.batchable)
            raise BadRequestError(f"endpoint: expected one of {known}.", param="endpoint")
        caller.require_endpoint(dialect.name)
        windows = self._settings.batches.completion_windows
        if asked.completion_window not in windows:
            raise BadRequestError(
                f"completion_window: expected one of {', '.join(windows)}.",
                param="completion_window",
            )
        if caller.tenant.classes and self._class not in caller.tenant.classes:
            raise PermissionDeniedError(
                f"The tenant may not use the class {self._class!r}, in which batches run."
            )
        if asked.output_ttl_s is not None:
            _require_ttl(asked.output_ttl_s, "output_expires_after.seconds")

    async def batch(self, tenant: Tenant, batch_id: str, family: str = "openai") -> Batch:
        """A batch of the tenant, made by that API.

        Raises:
            NotFoundError: it has none of that id.
        """
        batch = await self._run(self._batches.find, tenant.id, batch_id)
        if batch.family != family:
            raise NotFoundError(f"No batch found with id {batch_id[:80]!r}.", param="batch_id")
        return batch

    async def list(
        self, tenant: Tenant, after: str | None, limit: int, family: str = "openai"
    ) -> tuple[list[Batch], bool]:
        """Some of the tenant's batches, newest first, and whether there are more."""
        return await self._run(self._batches.page, tenant.id, after, limit, family)

    async def delete(self, tenant: Tenant, batch: Batch) -> None:
        """Forget a batch that has ended, with its input and its outputs.

        Raises:
            ConflictError: it has not ended.
        """
        await self._run(self._batches.delete, tenant.id, batch.id)
        for file_id in (batch.input_file_id, batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                with suppress(NotFoundError):
                    await self.delete_file(tenant, file_id)

    async def cancel(self, tenant: Tenant, batch_id: str) -> Batch:
        """Stop a batch; what is computed is kept.

        Raises:
            NotFoundError: the tenant has none of that id.
            ConflictError: it has ended.
        """
        batch = await self._run(self._batches.cancel, tenant.id, batch_id, self._now_s())
        self.runner.wake()
        return batch


def callers_in(
    directory: LiveDirectory, wall_clock: Callable[[], float]
) -> Callable[[str, str], Caller | None]:
    """Finds the caller of a tenant and key, as the directory is then. A key that has expired since
    it made a batch does not end it; one that was revoked does, and so does the tenant's end."""

    def find(tenant_id: str, key_id: str) -> Caller | None:
        caller = directory.directory.caller(key_id)
        if caller is None or caller.tenant.id != tenant_id or not caller.tenant.enabled:
            return None
        revoked_s = caller.key.revoked_s
        return None if revoked_s is not None and revoked_s <= wall_clock() else caller

    return find


def _ttl_s(fields: Mapping[str, str]) -> float | None:
    """How long a file is to be kept, from the form's ``expires_after``."""
    given = fields.get("expires_after[seconds]")
    if given is None:
        return None
    anchor = fields.get("expires_after[anchor]", "created_at")
    if anchor != "created_at":
        raise BadRequestError(
            "expires_after.anchor: 'created_at' is expected.", param="expires_after.anchor"
        )
    if not (given.isascii() and given.isdigit() and len(given) < 12):
        raise BadRequestError(
            "expires_after.seconds: a whole number is expected.", param="expires_after.seconds"
        )
    _require_ttl(int(given), "expires_after.seconds")
    return float(given)


def _require_ttl(seconds: float, param: str) -> None:
    if not _LEAST_TTL_S <= seconds <= _MOST_TTL_S:
        raise BadRequestError(
            f"{param}: {_LEAST_TTL_S} to {_MOST_TTL_S} are expected.", param=param
        )


def _require_purpose(purpose: str | None) -> None:
    if purpose != BATCH:
        told = "is needed" if purpose is None else f"{purpose[:40]!r} is not supported"
        raise BadRequestError(f"purpose: {told}; the purpose is 'batch'.", param="purpose")
