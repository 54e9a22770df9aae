"""Batches as Anthropic's clients have them: the requests come in one body, and the results are
asked for by the batch. Behind it is the same job over the same kind of file."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import orjson

from deployments.batches.files import StoredFile
from deployments.batches.jobs import Batch
from deployments.batches.life import Status
from deployments.batches.lines import Line, LineSplitter
from deployments.batches.service import Asked, Batches
from weir.errors import BadRequestError, NotFoundError
from weir.tenancy import Caller, Tenant

FAMILY = "anthropic"
_ENDPOINT = "/v1/messages"
_WINDOW = "24h"
#: Longer than any answer.
_MOST_LINE_BYTES = 256 * 1024 * 1024


class _Request(msgspec.Struct):
    custom_id: str
    params: msgspec.Raw


class _Create(msgspec.Struct):
    requests: list[_Request]


_decoder = msgspec.json.Decoder(_Create)


def input_of(raw: bytes) -> bytes:
    """The requests of a body as the lines of an input.

    Raises:
        BadRequestError: it is no list of requests.
    """
    try:
        asked = _decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequestError(f"requests: {error}.", param="requests") from None
    lines = []
    for request in asked.requests:
        # In one line, whatever blanks the client wrote.
        body = msgspec.Raw(msgspec.json.format(bytes(request.params), indent=-1))
        lines.append(msgspec.json.encode(Line(request.custom_id, "POST", _ENDPOINT, body)))
    return b"\n".join(lines) + b"\n"


async def create(batches: Batches, caller: Caller, raw: bytes) -> Batch:
    """Begin a batch over the requests of a body. All of them are looked at first.

    Raises:
        BadRequestError: one of them cannot run; the message says which.
        WeirError: too many large bodies are being read.
    """
    reading = batches.gateway.intake.off_loop
    content = await reading.run(caller.tenant.id, len(raw), lambda: input_of(raw))
    file = await batches.files.keep(caller.tenant, "message_batch.jsonl", content)
    try:
        found = await batches.look_at(caller, _ENDPOINT, file)
        if found.errors:
            first = found.errors[0]
            place = f"requests.{first['line'] - 1}: " if first["line"] else "requests: "
            raise BadRequestError(place + first["message"], param="requests")
        return await batches.create(caller, Asked(_ENDPOINT, file.id, _WINDOW), FAMILY)
    except BaseException:
        await batches.files.delete(caller.tenant, file.id)
        raise


def shown(batch: Batch) -> dict[str, Any]:
    """As Anthropic's clients read it. Counts are told at the end, as there."""
    counts = {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    if batch.status.ended:
        counts["succeeded"] = batch.completed
        counts["errored"] = batch.failed - batch.not_computed
        late = "canceled" if batch.status is Status.CANCELLED else "expired"
        counts[late] = batch.not_computed
    else:
        counts["processing"] = batch.total
    status = "canceling" if batch.status is Status.CANCELLING else "in_progress"
    ended_s = batch.times[batch.status] if batch.status.ended else None
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if batch.status.ended else status,
        "request_counts": counts,
        "created_at": _time(batch.created_s),
        "expires_at": _time(batch.expires_s),
        "ended_at": _time(ended_s),
        "cancel_initiated_at": _time(batch.times["cancelling"]),
        "archived_at": None,
        "results_url": f"/v1/messages/batches/{batch.id}/results" if batch.status.ended else None,
    }


async def results(batches: Batches, tenant: Tenant, batch: Batch) -> AsyncIterator[bytes]:
    """What has become of each request, a line each.

    Raises:
        StorageAwayError: they cannot be read.
    """
    for file_id in (batch.output_file_id, batch.error_file_id):
        if file_id is None:
            continue
        file = await batches.files.find(tenant, file_id)
        async for text in _told(batches, file):
            yield text


async def outputs(batches: Batches, tenant: Tenant, batch_id: str) -> Batch:
    """A batch whose results are there.

    Raises:
        NotFoundError: there is no such batch, it has not ended, or its results are gone.
    """
    batch = await batches.batch(tenant, batch_id, FAMILY)
    if not batch.status.ended:
        raise NotFoundError("The batch has not ended; it has no results yet.")
    for file_id in (batch.output_file_id, batch.error_file_id):
        if file_id is not None:
            await batches.files.find(tenant, file_id)
    return batch


async def _told(batches: Batches, file: StoredFile) -> AsyncIterator[bytes]:
    splitter = LineSplitter(_MOST_LINE_BYTES)
    async for block in batches.files.content(file, 0, file.bytes):
        lines = [line.raw or b"" for line in splitter.feed(block)]
        if lines:
            yield await batches.threads.run(results_of, lines)


def results_of(lines: Sequence[bytes]) -> bytes:
    """The same of several lines."""
    return b"".join(map(result_of, lines))


def result_of(line: bytes) -> bytes:
    """A line of an output or error file in Anthropic's form."""
    told = orjson.loads(line)
    response, error = told["response"], told["error"]
    result: dict[str, Any]
    if error is not None:
        result = {"type": "expired" if error["code"] == "batch_expired" else "canceled"}
    elif response["status_code"] == 200:
        result = {"type": "succeeded", "message": response["body"]}
    else:
        result = {"type": "errored", "error": response["body"]}
    return orjson.dumps({"custom_id": told["custom_id"], "result": result}) + b"\n"


def _time(at_s: float | None) -> str | None:
    return None if at_s is None else dt.datetime.fromtimestamp(at_s, dt.UTC).isoformat()
