"""What is around the request path for ``POST /v1/responses``: what a response builds on, keeping
it, and running it on without its client."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import orjson

from deployments.gateway import http
from deployments.gateway.bodies.from_responses import ResponsesChat, kept_items, read_items
from deployments.gateway.compressed import Aside
from deployments.gateway.dialects import Writer
from deployments.gateway.dialects.responses import (
    ResponsesDialect,
    ResponsesWriter,
    describe,
    failed,
)
from deployments.gateway.handle import Gateway
from deployments.gateway.outputs import Collected, Counts, Output
from deployments.gateway.request import Door, HttpDoor
from deployments.gateway.sink import Answer, Closing, Headers, HttpSink, MemorySink, Sink
from deployments.gateway.stored_responses import ResponseStore, Stored
from weir.errors import (
    BadRequestError,
    InternalError,
    NotFoundError,
    OverloadedError,
    PreviousResponseError,
    RateLimitError,
    WeirError,
)
from weir.settings.responses import ResponsesSettings
from weir.tenancy import Caller, Tenant

_LOG = logging.getLogger("weir.gateway")
_DAY_S = 86_400.0
_TOUCH_S = 2.0
#: Two seconds apart.
_CLOSE_ATTEMPTS = 30
#: A response whose gateway has not touched it for so long is lost.
LOST_S = 20.0


class Responses:
    """Makes, keeps, finds, cancels and deletes responses."""

    def __init__(self, gateway: Gateway, store: ResponseStore, settings: ResponsesSettings) -> None:
        self.gateway = gateway
        self.store = store
        self._settings = settings
        #: Requests that go on without their clients, and how many each tenant has.
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._background: Counter[str] = Counter()
        self._watchers: set[asyncio.Task[None]] = set()

    async def create(self, scope: http.Scope, receive: http.Receive, send: http.Send) -> None:
        """Answer a request over HTTP; one in the background goes on after that."""
        call = _Call(self, HttpDoor(scope, receive), send)
        loop = asyncio.get_running_loop()
        work = loop.create_task(self.gateway.handle(call.dialect, call, call.sink))
        answered = loop.create_task(call.answered.wait())
        try:
            await asyncio.wait({work, answered}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answered.cancel()
            if call.begun is not None:
                self._follow(call, work)
            elif not work.done():
                work.cancel()
                await asyncio.wait({work})
        if call.begun is not None and call.answered.is_set():
            await http.send_bytes(send, 200, orjson.dumps(call.begun.response), [http.JSON])
        else:
            work.result()

    async def find(self, tenant: Tenant, response_id: str) -> Stored:
        """A response of the tenant.

        Raises:
            NotFoundError: there is none of that id.
        """
        stored = await self.store.get(tenant.id, response_id)
        if stored is None:
            raise NotFoundError(
                f"Response with id {response_id[:80]!r} not found.", param="response_id"
            )
        if stored.open and stored.quiet_s > LOST_S:
            error = InternalError("The gateway that ran it is gone.")
            lost = Stored(failed(stored.response, error), stored.items)
            await self.store.close(tenant.id, lost, self._ttl_s(tenant))
            return lost
        return stored

    async def cancel(self, tenant: Tenant, response_id: str) -> dict[str, Any]:
        """End a response that runs in the background, and tell how it stands then.

        Raises:
            NotFoundError: there is none of that id.
            BadRequestError: it did not run in the background.
        """
        stored = await self.find(tenant, response_id)
        if not stored.response["background"]:
            raise BadRequestError(
                "Only a response with background: true can be cancelled.", param="response_id"
            )
        if not stored.open:
            return stored.response
        cancelled = {**stored.response, "status": "cancelled"}
        ended = Stored(cancelled, stored.items)
        await self.store.close(tenant.id, ended, self._ttl_s(tenant))
        self._stop(tenant, response_id)
        return (await self.find(tenant, response_id)).response

    async def delete(self, tenant: Tenant, response_id: str) -> None:
        """Forget a response; one that still runs is cancelled.

        Raises:
            NotFoundError: there is none of that id.
        """
        await self.find(tenant, response_id)
        await self.store.delete(tenant.id, response_id)
        self._stop(tenant, response_id)

    async def forget(self, tenant: Tenant) -> int:
        """Forget all responses of the tenant, and end those that run here in the background. How
        many they were."""
        for holder, response_id in list(self._running):
            if holder == tenant.id:
                self._stop(tenant, response_id)
        return await self.store.forget(tenant.id)

    async def keep(self, tenant: Tenant, stored: Stored) -> None:
        """Keep a response for as long as its tenant's may be kept."""
        await self.store.put(tenant.id, stored, self._ttl_s(tenant))

    def _ttl_s(self, tenant: Tenant) -> float:
        ttl_s, days = self._settings.ttl_s, tenant.retention_days
        return min(ttl_s, days * _DAY_S) if days else ttl_s

    async def aclose(self) -> None:
        """End what runs in the background."""
        tasks = [*self._running.values(), *self._watchers]
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def admit(self, tenant: Tenant) -> None:
        """Count one more in the background.

        Raises:
            RateLimitError: the tenant has as many as it may.
        """
        if self._background[tenant.id] >= self._settings.max_background_per_tenant:
            raise RateLimitError(
                f"{self._background[tenant.id]} responses run in the background already.",
                param="background",
            )
        self._background[tenant.id] += 1

    def _stop(self, tenant: Tenant, response_id: str) -> None:
        task = self._running.get((tenant.id, response_id))
        if task is not None:
            task.cancel()

    def _follow(self, call: _Call, work: asyncio.Task[None]) -> None:
        self._running[call.tenant.id, call.dialect.response_id] = work
        watcher = asyncio.get_running_loop().create_task(self._watch(call, work))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    async def _watch(self, call: _Call, work: asyncio.Task[None]) -> None:
        """Until it ends here, or has been closed from elsewhere; then keep what it came to."""
        tenant, response_id = call.tenant.id, call.dialect.response_id
        try:
            while not (await asyncio.wait({work}, timeout=_TOUCH_S))[0]:
                with suppress(OverloadedError):
                    if not await self.store.touch(tenant, response_id):
                        work.cancel()
            await self._close(call.tenant, call.outcome())
        finally:
            del self._running[tenant, response_id]
            self._background[tenant] -= 1

    async def _close(self, tenant: Tenant, ended: Stored) -> None:
        """Keep what a response came to, if need be when Redis is back."""
        for _ in range(_CLOSE_ATTEMPTS):
            with suppress(OverloadedError):
                await self.store.close(tenant.id, ended, self._ttl_s(tenant))
                return
            await asyncio.sleep(_TOUCH_S)
        _LOG.error("a response in the background could not be kept", extra={"id": ended.id})


class _Call:
    """One request to make a response, as the gateway's door: what it builds on is looked up as soon
    as the body is read. ``begun``: the response as its client first saw it, if it goes on without
    its client; ``answered``: it is kept, so that the client can be told."""

    authenticated = None
    batch = None
    caller: Caller

    def __init__(self, responses: Responses, door: Door, send: http.Send) -> None:
        self._responses = responses
        self._door = door
        self.dialect = ResponsesDialect(f"resp_{responses.gateway.parts.ids()}")
        self.sink = _CallSink(self, HttpSink(send, self.dialect))
        self.answered = asyncio.Event()
        self.begun: Stored | None = None

    @property
    def tenant(self) -> Tenant:
        """Whose request it is, once the body is read."""
        return self.caller.tenant

    def header(self, name: bytes) -> str | None:
        """See :class:`deployments.gateway.request.Door`."""
        return self._door.header(name)

    async def read(self, max_bytes: int, aside: Aside) -> bytes:
        """See :class:`deployments.gateway.request.Door`.

        Raises:
            PreviousResponseError: there is nothing to go on from.
            RateLimitError: too many of the tenant's responses run in the background.
        """
        raw = await self._door.read(max_bytes, aside)
        given = self.header(b"authorization"), self.header(b"x-api-key")
        self.caller = self._responses.gateway.directory.authenticate(*given)
        self.dialect.keeps = self.tenant.retention_days > 0
        self.dialect.earlier = ()
        if b'"previous_response_id"' in raw:
            await self._recall(raw)
        if b'"background"' in raw:
            body = await self._parsed(raw)
            if body.asked.background:
                await self._detach(body)
        return raw

    async def discard(self) -> None:
        """See :class:`deployments.gateway.request.Door`."""
        await self._door.discard()

    async def _parsed(self, raw: bytes) -> ResponsesChat:
        intake = self._responses.gateway.intake
        parsed: ResponsesChat = await intake.parse(self.dialect, self.tenant, raw, intake.unknown())
        return parsed

    async def _recall(self, raw: bytes) -> None:
        previous = (await self._parsed(raw)).asked.previous_response_id
        if previous is None:
            return
        stored = await self._responses.store.get(self.tenant.id, previous)
        name = "previous_response_id"
        if stored is None:
            raise PreviousResponseError(
                f"{name}: {previous[:80]!r} not found. Responses are kept where the request says "
                "store: true, or where the tenant's retention_days do.",
                param=name,
            )
        if stored.response["status"] not in ("completed", "incomplete"):
            status = stored.response["status"]
            raise PreviousResponseError(f"{name}: {previous[:80]!r} is {status}.", param=name)
        self.dialect.earlier = read_items([*stored.items, *stored.response["output"]])

    async def _detach(self, body: ResponsesChat) -> None:
        """Let the client be answered now, and go on without it."""
        self._responses.gateway.find_model(body.model, self.caller)
        self._responses.admit(self.tenant)
        created_s = int(self._responses.gateway.parts.wall_clock())
        response = describe(body.asked, body.model, self.dialect.response_id, created_s)
        self.begun = Stored(response, self._items(body), open=True)
        await self._responses.keep(self.tenant, self.begun)
        self.sink.target = MemorySink()
        self.answered.set()

    def outcome(self) -> Stored:
        """What a response in the background came to."""
        assert self.begun is not None
        memory, error = self.sink.target, None
        if isinstance(memory, MemorySink):
            if memory.body:
                return Stored(orjson.loads(memory.body), self.begun.items)
            error = memory.error
        error = error or InternalError("The response was broken off.")
        return Stored(failed(self.begun.response, error), self.begun.items)

    def _items(self, body: ResponsesChat) -> list[dict[str, Any]]:
        return kept_items(body.items, self.dialect.response_id.removeprefix("resp_"))

    async def keep(self, writer: Writer, collected: Collected, counts: Counts) -> None:
        """Keep a response whose client has waited for it."""
        assert isinstance(writer, ResponsesWriter)
        asked = writer.body.asked
        if asked.store:
            stored = Stored(writer.finished(collected, counts), self._items(writer.body))
            await self._responses.keep(self.tenant, stored)


class _CallSink:
    """Writes to the client and keeps the answer; or, in the background, into memory."""

    def __init__(self, call: _Call, target: Sink) -> None:
        self._call = call
        self.target = target

    @property
    def status(self) -> int:
        return self.target.status

    @property
    def committed(self) -> bool:
        return self.target.committed

    @property
    def quiet(self) -> bool:
        return self.target.quiet

    @quiet.setter
    def quiet(self, quiet: bool) -> None:
        self.target.quiet = quiet

    def begin(
        self, writer: Writer, choices: int, stream: bool, headers: Headers, closing: Closing
    ) -> Answer:
        answer = self.target.begin(writer, choices, stream, headers, closing)
        if self._call.begun is not None:
            return answer
        return _KeptAnswer(answer, self._call, writer)

    async def fail(self, error: WeirError, headers: Sequence[tuple[bytes, bytes]]) -> None:
        await self.target.fail(error, headers)

    def keep_open(self, headers: Headers) -> None:
        self.target.keep_open(headers)


class _KeptAnswer:
    """Passes an answer on, and keeps it before its client knows that it is complete."""

    def __init__(self, answer: Answer, call: _Call, writer: Writer) -> None:
        self._answer = answer
        self._call = call
        self._writer = writer
        self._collected = Collected()

    async def put(self, choice: int, output: Output) -> None:
        self._collected.add(output)
        await self._answer.put(choice, output)

    async def end(self, counts: Counts) -> None:
        await self._call.keep(self._writer, self._collected, counts)
        await self._answer.end(counts)
