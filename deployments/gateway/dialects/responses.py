"""OpenAI's Responses: ``POST /v1/responses``.

Parsing makes a chat body out of the request, so that features, templates, tools, limits and spill
rules are those of chat; only the form of the answer is this dialect's own. What a response builds
on, keeping it, and running it in the background are around the request path
(:mod:`deployments.gateway.responses`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from deployments import wire
from deployments.gateway.bodies.from_responses import ResponsesChat, chat_body
from deployments.gateway.bodies.parsing import parse_body
from deployments.gateway.bodies.responses import Item, ResponsesBody
from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.dialects.base import Dialect, Prompts
from deployments.gateway.dialects.chat import ChatDialect
from deployments.gateway.dialects.openai import OpenAiDialect
from deployments.gateway.dialects.response_items import Event, OutputItems
from deployments.gateway.encoding import Encoding
from deployments.gateway.outputs import Collected, Counts, Output
from deployments.gateway.prompts import PromptEncoder
from weir.errors import UnsupportedError, WeirError, error_body

_CHAT = ChatDialect()


class ResponsesDialect(OpenAiDialect):
    """See :class:`deployments.gateway.dialects.base.Dialect`.

    An object of one request where the response is to have an id of its own: ``response_id``, and
    ``earlier``, the items before its input (None: nothing is kept here, so that there are none).
    ``keeps``: whether the response is kept where the request does not say (``store``).
    """

    name = "responses"
    path = "/v1/responses"
    prompt_field = "input"
    summary = "Answer a conversation, with items and typed events"
    body = ResponsesBody

    def __init__(self, response_id: str = "") -> None:
        self.response_id = response_id
        self.earlier: Sequence[Item] | None = None
        self.keeps = False

    def parse(self, raw: bytes, unknown: Unknown | None = None) -> ResponsesChat:
        asked = parse_body(ResponsesBody, raw, unknown)
        if asked.previous_response_id is not None and self.earlier is None:
            raise UnsupportedError(
                "previous_response_id: responses are not kept here; send the whole input.",
                param="previous_response_id",
            )
        if not (self.keeps or asked.background or "store" in asked.model_fields_set):
            asked = asked.model_copy(update={"store": False})
        return chat_body(asked, self.earlier or ())

    def suited(self, tasks: frozenset[str]) -> Dialect | None:
        return self if not tasks or "generate" in tasks else None

    async def prompts(self, body: ResponsesChat, encoding: Encoding) -> list[list[int]]:
        return await _CHAT.prompts(body, encoding)

    def choices(self, body: ResponsesChat) -> int:
        return 1

    def output_limit(self, body: ResponsesChat) -> int | None:
        return body.max_output_tokens

    def limit_field(self, body: ResponsesChat) -> str:
        return "max_output_tokens"

    def submission(
        self, body: ResponsesChat, prompt: list[int], max_tokens: int, reasons: bool
    ) -> wire.Submit:
        return _CHAT.submission(body, prompt, max_tokens, reasons)

    def writer(
        self,
        body: ResponsesChat,
        request_id: str,
        created_s: int,
        prompts: Prompts,
        encoder: PromptEncoder,
    ) -> ResponsesWriter:
        response_id = self.response_id or f"resp_{request_id}"
        return ResponsesWriter(body, describe(body.asked, body.model, response_id, created_s))

    def error_event(self, error: WeirError) -> bytes:
        told = {**error_body(error)["error"], "type": "error", "sequence_number": 0}
        return b"event: error\ndata: " + orjson.dumps(told) + b"\n\n"


def describe(
    asked: ResponsesBody, model: str, response_id: str, created_s: float
) -> dict[str, Any]:
    """A response that has just begun: what was asked for, under the names that clients read."""
    text = asked.text.format if asked.text else None
    reasoning = asked.reasoning.effort if asked.reasoning else None
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_s,
        "status": "in_progress",
        "background": asked.background,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": asked.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "reasoning": {"effort": reasoning, "summary": None},
        "store": asked.store,
        "temperature": asked.temperature,
        "text": {"format": _shown(text) if text else {"type": "text"}},
        "tool_choice": _choice(asked),
        "tools": [_tool(tool.model_dump()) for tool in asked.tools or ()],
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": asked.top_p,
        "truncation": asked.truncation or "disabled",
        "usage": None,
        "user": asked.user,
    }


def failed(response: dict[str, Any], error: WeirError) -> dict[str, Any]:
    """A response that came to no proper end."""
    code = "server_error"
    if error.status < 500:
        code = "rate_limit_exceeded" if error.status == 429 else "invalid_prompt"
    told = {"code": code, "message": error.message}
    return {**response, "status": "failed", "error": told}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", **{n: v for n, v in tool.items() if n != "type"}}


def _shown(model: Any) -> dict[str, Any]:
    return dict(model.model_dump(by_alias=True, exclude_none=True))


def _choice(asked: ResponsesBody) -> Any:
    choice = asked.tool_choice
    return choice or "auto" if choice is None or isinstance(choice, str) else _shown(choice)


class ResponsesWriter:
    """``response`` and its events: created, in progress, those of the items, then the end."""

    def __init__(self, body: ResponsesChat, response: dict[str, Any]) -> None:
        self.body = body
        self.response = response
        self._items = OutputItems(response["id"].removeprefix("resp_"))
        self._number = 0
        self._finish_reason = ""
        self._closing: bytes | None = None

    def event(self, choice: int, output: Output) -> bytes:
        if isinstance(output, wire.Embedded):
            return b""
        opening = b""
        if not self._number:
            begun = {"response": self.response}
            opening = self._render([("response.created", begun), ("response.in_progress", begun)])
        if isinstance(output, wire.Done):
            self._finish_reason = output.finish_reason
        return opening + self._render(self._items.add(output))

    def last_event(self, counts: Counts) -> bytes:
        closing = self._close()
        response = self._ended(counts)
        return closing + self._render([(f"response.{self._status}", {"response": response})])

    def error_event(self, error: WeirError) -> bytes:
        response = failed({**self.response, "output": self._items.items}, error)
        return self._render([("response.failed", {"response": response})])

    def whole(self, choices: Sequence[Collected], counts: Counts) -> bytes:
        return orjson.dumps(self.finished(choices[0], counts))

    def finished(self, collected: Collected, counts: Counts) -> dict[str, Any]:
        """The response as it is when all has been generated. ``collected``: its answer, for one
        that is not streamed; the items of one that is are those of its events."""
        if not self._number:
            self._items.add_all(collected)
            self._finish_reason = collected.finish_reason
        self._close()
        return self._ended(counts)

    def _close(self) -> bytes:
        if self._closing is None:
            self._closing = self._render(self._items.close(self._status))
        return self._closing

    @property
    def _status(self) -> str:
        return "incomplete" if self._finish_reason == "length" else "completed"

    def _ended(self, counts: Counts) -> dict[str, Any]:
        status = self._status
        details = {"reason": "max_output_tokens"} if status == "incomplete" else None
        usage = {
            "input_tokens": counts.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": counts.cached_tokens,
                "cache_write_tokens": 0,
            },
            "output_tokens": counts.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self._items.reasoning_tokens},
            "total_tokens": counts.prompt_tokens + counts.output_tokens,
        }
        ended = {"status": status, "incomplete_details": details, "usage": usage}
        return {**self.response, **ended, "output": self._items.items}

    def _render(self, events: Iterable[Event]) -> bytes:
        rendered = []
        for kind, fields in events:
            told = {"type": kind, "sequence_number": self._number, **fields}
            rendered.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(told)))
            self._number += 1
        return b"".join(rendered)
