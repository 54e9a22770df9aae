"""What the dialects of OpenAI's API share, and the writers of answers that are never streamed."""

from __future__ import annotations

from typing import Any

from deployments.gateway.dialects.base import COMMENT
from deployments.gateway.dialects.generating import error_event
from deployments.gateway.outputs import Counts, Output
from weir.errors import WeirError, error_body


class OpenAiDialect:
    """Base of the dialects of OpenAI's API, and of what servers like vLLM's add to it: errors have
    OpenAI's shape. See :class:`deployments.gateway.dialects.base.Dialect`."""

    family = "openai"
    keep_alive = COMMENT

    def error_body(self, error: WeirError) -> dict[str, Any]:
        return error_body(error)

    def error_event(self, error: WeirError) -> bytes:
        return error_event(error)


class WholeWriter:
    """Base of the writers of answers that have no event stream. See
    :class:`deployments.gateway.dialects.base.Writer`."""

    def event(self, choice: int, output: Output) -> bytes:
        return b""

    def last_event(self, counts: Counts) -> bytes:
        return b""

    def error_event(self, error: WeirError) -> bytes:
        return error_event(error)
