"""Files, for whoever asks from an event loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from deployments.batches.files import BATCH, FilePage, FileTable, StoredFile
from deployments.batches.storage import BLOCK_BYTES, Storage
from deployments.batches.threads import Threads
from deployments.batches.uploads import FORM_BYTES, FormReader, receive, too_large
from weir.errors import BadRequestError, RateLimitError
from weir.settings.batches import FilesSettings
from weir.tenancy import Tenant

_LEAST_TTL_S, _MOST_TTL_S = 3600, 30 * 86_400
#: Under way at a time in one gateway: of all tenants, and of one.
_UPLOADS, _TENANT_UPLOADS = 16, 4


class Files:
    """Of one gateway. Everything of a tenant is found by its tenant: to others it does not exist.
    ``ids`` makes unique ids; ``wall_clock`` gives seconds since the epoch."""

    def __init__(
        self,
        table: FileTable,
        storage: Storage,
        threads: Threads,
        settings: FilesSettings,
        ids: Callable[[], str],
        wall_clock: Callable[[], float],
    ) -> None:
        self.table = table
        self.storage = storage
        self._threads = threads
        self._run = threads.run
        self._settings = settings
        self._ids = ids
        self._now_s = wall_clock
        self._uploads: Counter[str] = Counter()

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
        most = self._settings.max_file_bytes
        if announced_bytes is not None and announced_bytes > most + FORM_BYTES:
            raise too_large(most)
        reserved = min(most, announced_bytes if announced_bytes is not None else most)
        with self._uploading(tenant):
            made = StoredFile(
                f"file-{self._ids()}", tenant.id, BATCH, "", reserved, self._now_s(), None
            )
            async with self._reserved(made):
                made = await self._receive(made, reader, body)
                await self._run(self.table.publish, made)
        return made

    @asynccontextmanager
    async def _reserved(self, made: StoredFile) -> AsyncIterator[None]:
        """A file that is about to be published; nothing is left of it if it is not.

        Raises:
            StorageFullError: its tenant keeps as much as it may.
        """
        await self._run(self.table.reserve, made)
        try:
            yield
        except BaseException:
            await self._run(self.table.give_up, made.id)
            await self._run(self.storage.remove, made.path)
            raise

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
        most = self._settings.max_file_bytes
        content = await self._run(self.storage.begin, made.path)
        try:
            form = await receive(body, reader, content, most, self._threads)
            ttl_s = _ttl_s(form.fields) or self._settings.ttl_s
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

    async def page(self, tenant: Tenant, page: FilePage) -> tuple[list[StoredFile], bool]:
        """Some of the tenant's files, and whether there are more."""
        return await self._run(self.table.page, tenant.id, page, self._now_s())

    async def find(self, tenant: Tenant, file_id: str) -> StoredFile:
        """A file of the tenant.

        Raises:
            NotFoundError: it has none of that id.
        """
        return await self._run(self.table.find, tenant.id, file_id, self._now_s())

    async def content(self, file: StoredFile, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes of a file from ``start`` to before ``end``, piece by piece.

        Raises:
            StorageAwayError: they cannot be read.
        """
        while start < end:
            stop = min(end, start + BLOCK_BYTES)
            yield await self._run(self.storage.read, file.path, start, stop)
            start = stop

    async def delete(self, tenant: Tenant, file_id: str) -> None:
        """Forget a file.

        Raises:
            NotFoundError: the tenant has none of that id.
            FileInUseError: a batch reads it.
        """
        file = await self._run(self.table.delete, tenant.id, file_id, self._now_s())
        await self._run(self.storage.remove, file.path)

    async def keep(self, tenant: Tenant, filename: str, content: bytes) -> StoredFile:
        """Keep a file whose content is here already.

        Raises:
            BodyTooLargeError: it is too large.
            StorageFullError: the tenant keeps as much as it may.
        """
        most = self._settings
        if len(content) > most.max_file_bytes:
            raise too_large(most.max_file_bytes)
        now_s = self._now_s()
        file_id, expires_s = f"file-{self._ids()}", now_s + most.ttl_s
        made = StoredFile(file_id, tenant.id, BATCH, filename, len(content), now_s, expires_s)
        async with self._reserved(made):
            await self._run(self.storage.put, made.path, content)
            await self._run(self.table.publish, made)
        return made


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
    require_ttl(int(given), "expires_after.seconds")
    return float(given)


def require_ttl(seconds: float, param: str) -> None:
    """Raises:
    BadRequestError: a file cannot be kept for so long.
    """
    if not _LEAST_TTL_S <= seconds <= _MOST_TTL_S:
        raise BadRequestError(
            f"{param}: {_LEAST_TTL_S} to {_MOST_TTL_S} are expected.", param=param
        )


def _require_purpose(purpose: str | None) -> None:
    if purpose != BATCH:
        told = "is needed" if purpose is None else f"{purpose[:40]!r} is not supported"
        raise BadRequestError(f"purpose: {told}; the purpose is 'batch'.", param="purpose")
