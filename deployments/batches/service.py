"""Batches, for whoever asks from an event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Engine

from deployments.batches.computing import Computing
from deployments.batches.file_service import Files, require_ttl
from deployments.batches.files import FileTable, StoredFile
from deployments.batches.finishing import Finisher
from deployments.batches.jobs import Batch, BatchTable, NewBatch
from deployments.batches.recorder import Recorder
from deployments.batches.results import ResultTable
from deployments.batches.runner import Runner, Running
from deployments.batches.storage import Storage
from deployments.batches.threads import Threads
from deployments.batches.validating import Findings, LineLimits, Validation
from deployments.batches.window import Window
from deployments.batches.work import WorkTable
from deployments.gateway.dialects import DIALECTS
from deployments.gateway.handle import Gateway
from weir.errors import BadRequestError, NotFoundError, PermissionDeniedError
from weir.settings import Settings
from weir.settings.batches import class_of_batches, window_s
from weir.tenancy import Caller, LiveDirectory, Tenant

#: What a batch's id begins with, by whose API made it.
_PREFIXES = {"openai": "batch", "anthropic": "msgbatch"}
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
        self.threads = Threads()
        self._run = self.threads.run
        self._limits = LineLimits(
            settings.batches.max_lines,
            settings.server.max_body_bytes + _ENVELOPE_BYTES,
            settings.batches.chunk_lines,
        )
        self._class = class_of_batches(settings.batches, gateway.parts.classes)
        self.files = Files(
            FileTable(engine, settings.files),
            storage,
            self.threads,
            settings.files,
            gateway.parts.ids,
            gateway.parts.wall_clock,
        )
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
            self.files.storage,
            results,
            Recorder(self.files.storage, results, self.threads, self._ids),
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
                self.files.table,
                Finisher(self.files.storage, work, results, ttl_s, limits.max_line_bytes),
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

    async def look_at(self, caller: Caller, endpoint: str, file: StoredFile) -> Findings:
        """What is wrong with the lines of an input."""
        validation = Validation(self.gateway, self._limits, endpoint, caller)
        return await validation.run(file, self.files.storage, self.threads)

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
            require_ttl(asked.output_ttl_s, "output_expires_after.seconds")

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
                    await self.files.delete(tenant, file_id)

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
