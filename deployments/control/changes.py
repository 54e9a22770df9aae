"""The one way in which the API changes the database.

A change, its entry in the audit log and the answer that is kept for whoever sends the request again
are one transaction: all of it is there, or nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from deployments.control.idempotency import Answer, repeatable
from deployments.control.routing import principal_of
from deployments.control.store import Store

REPLAYED_HEADER = "idempotent-replayed"


@dataclass(frozen=True, slots=True)
class Made:
    """What came of a change. ``body`` None: nothing is said."""

    body: BaseModel | None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Changes:
    """``secret``: the platform's own, which opens what is kept. ``now_s``: seconds since the
    epoch."""

    def __init__(self, store: Store, secret: bytes, now_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._secret = secret
        self._now_s = now_s

    async def make(self, request: Request, work: Callable[[Connection], Made]) -> Response:
        """Do it, or answer as the first time.

        Raises:
            WeirError: what ``work`` raises; then nothing is done or kept.
            IdempotencyError, ConflictError, BadRequestError: the idempotency key cannot be used.
        """
        again = await repeatable(request, principal_of(request).actor, self._secret)

        def run(connection: Connection) -> Response:
            if again is None:
                return _response(_packed(work(connection)))
            again.lock(connection)
            kept = again.kept(connection, self._now_s())
            if kept is not None:
                return _response(kept, {REPLAYED_HEADER: "true"})
            answer = _packed(work(connection))
            again.keep(connection, answer, self._now_s())
            return _response(answer)

        return await self._store.write(run)


def _packed(made: Made) -> dict[str, Any]:
    body = None if made.body is None else made.body.model_dump_json()
    return {"status": made.status, "headers": dict(made.headers), "body": body}


def _response(answer: Answer, more: Mapping[str, str] | None = None) -> Response:
    headers = {**answer["headers"], **(more or {})}
    if answer["body"] is None:
        return Response(status_code=answer["status"], headers=headers)
    return Response(answer["body"], answer["status"], headers, "application/json")
