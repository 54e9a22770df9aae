"""Structured logs: one JSON object a line, with the request id and tenant of the current task."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from weir.settings.tree import LogSettings

_REQUEST: ContextVar[tuple[str, str, str]] = ContextVar("weir_request", default=("", "", ""))
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def request_logging(request_id: str, tenant: str, trace_id: str = "") -> Iterator[None]:
    """Inside, every record of this task carries ``request_id`` and ``tenant``, and ``trace_id``
    where requests are traced."""
    token = _REQUEST.set((request_id, tenant, trace_id))
    try:
        yield
    finally:
        _REQUEST.reset(token)


def stack_of(error: BaseException) -> str:
    """Where an error came from: its type and stack, and those of what led to it. Messages are left
    out, because they may hold what a client sent, and prompts are not logged."""
    told: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__)).rstrip()
        told.append(f"{type(current).__name__}\n{frames}".rstrip())
        cause, context = current.__cause__, current.__context__
        current = cause or (None if current.__suppress_context__ else context)
    return "\nafter ".join(told)


class JsonFormatter(logging.Formatter):
    """``ts, level, logger, msg``, then request, tenant and trace, then the record's ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        request_id, tenant, trace_id = _REQUEST.get()
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if request_id:
            line["request_id"] = request_id
        if tenant:
            line["tenant"] = tenant
        if trace_id:
            line["trace_id"] = trace_id
        line |= {k: v for k, v in vars(record).items() if k not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logging(settings: LogSettings) -> None:
    """Send weir's own loggers to stderr in the chosen format. Libraries keep their handlers."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s"))
    logger = logging.getLogger("weir")
    logger.handlers[:] = [handler]
    logger.setLevel(settings.level.upper())
    logger.propagate = False
