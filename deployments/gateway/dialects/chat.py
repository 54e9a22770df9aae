"""OpenAI's chat completions: ``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import orjson

from deployments import wire
from deployments.gateway.bodies.requests import ChatBody, parse_body
from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.dialects.base import Dialect, Prompts, Writer
from deployments.gateway.dialects.generating import (
    DONE,
    EventHead,
    Tally,
    cut,
    data,
    error_event,
    prompt_logprobs,
    submission,
    token_bytes,
    token_name,
    uncut,
    wants_usage,
)
from deployments.gateway.dialects.openai import OpenAiDialect
from deployments.gateway.encoding import Encoding
from deployments.gateway.outputs import Collected, Counts, Output, extra_of
from deployments.gateway.prompts import PromptEncoder
from weir.errors import WeirError


class ChatDialect(OpenAiDialect):
    """See :class:`deployments.gateway.dialects.base.Dialect`."""

    name = "chat"
    path = "/v1/chat/completions"
    prompt_field = "messages"
    summary = "Answer a conversation"
    body = ChatBody

    def parse(self, raw: bytes, unknown: Unknown | None = None) -> ChatBody:
        return parse_body(ChatBody, raw, unknown)

    def suited(self, tasks: frozenset[str]) -> Dialect | None:
        return self if not tasks or "generate" in tasks else None

    async def prompts(self, body: ChatBody, encoding: Encoding) -> list[list[int]]:
        if body.has_other_parts:
            return [[]]
        if body.truncate_prompt_tokens is None:
            return [await encoding.chat(body.conversation)]
        ids = await uncut(body, encoding).chat(body.conversation)
        return cut(body, encoding, [ids])

    def choices(self, body: ChatBody) -> int:
        return body.n

    def output_limit(self, body: ChatBody) -> int | None:
        return body.max_output_tokens

    def limit_field(self, body: ChatBody) -> str:
        return "max_completion_tokens" if body.max_completion_tokens else "max_tokens"

    def submission(
        self, body: ChatBody, prompt: list[int], max_tokens: int, reasons: bool
    ) -> wire.Submit:
        messages = body.as_openai() if body.has_other_parts else None
        return submission(body, prompt, max_tokens, reasons, messages)

    def writer(
        self,
        body: ChatBody,
        request_id: str,
        created_s: int,
        prompts: Prompts,
        encoder: PromptEncoder,
    ) -> Writer:
        return ChatWriter(body, request_id, created_s, prompts)


class ChatWriter:
    """``chat.completion`` and its chunks: a chunk with the role, chunks with output, then one with
    an empty delta and the finish reason, as OpenAI sends them."""

    def __init__(self, body: ChatBody, request_id: str, created_s: int, prompts: Prompts) -> None:
        self._body = body
        self._id = f"chatcmpl-{request_id}"
        self._created_s = created_s
        self._head = EventHead(body, self._id, "chat.completion.chunk", created_s)
        self._prompts = prompts
        self._tally = Tally(body, sum(map(len, prompts)))
        self._begun: set[int] = set()
        self._called: set[int] = set()

    def event(self, choice: int, output: Output) -> bytes:
        if isinstance(output, wire.Embedded):
            return b""
        extra = extra_of(output)
        opening = b""
        if choice not in self._begun:
            self._begun.add(choice)
            opening = self._opening(choice)
            if self._body.echoed_text:
                opening += self._plain(choice, self._body.echoed_text)
        if extra is None and not self._tally.wanted and not self._body.return_token_ids:
            middle = self._plain(choice, output.text) if output.text else b""
        else:
            middle = self._rich(choice, output, extra or wire.Extra())
        if not isinstance(output, wire.Done):
            return opening + middle
        stop_reason = extra.stop_reason if extra else None
        return opening + middle + self._chunk(choice, {}, output.finish_reason, stop_reason, 0)

    def _opening(self, choice: int) -> bytes:
        role = {"role": "assistant", "content": ""}
        shown = len(self._begun) == 1 and self._body.return_token_ids
        more = {"prompt_token_ids": self._prompts[0]} if shown else {}
        return self._chunk(choice, role, None, None, 0, more=more)

    def _plain(self, choice: int, text: str) -> bytes:
        return (
            b'%b{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}]}\n\n'
            % (
                self._head.opening,
                choice,
                orjson.dumps(text),
            )
        )

    def _rich(self, choice: int, output: wire.Chunk | wire.Done, extra: wire.Extra) -> bytes:
        delta: dict[str, Any] = {}
        if extra.reasoning:
            delta["reasoning"] = delta["reasoning_content"] = extra.reasoning
        if output.text:
            delta["content"] = output.text
        if extra.calls:
            delta["tool_calls"] = [_call_delta(call) for call in extra.calls]
        scored = _logprobs(extra.logprobs, self._body)
        if not delta and scored is None and not self._body.return_token_ids:
            return b""
        if not delta:
            delta["content"] = ""
        tokens = output.tokens if self._body.return_token_ids else None
        return self._chunk(choice, delta, None, None, len(output.tokens), scored, tokens)

    def _chunk(
        self,
        choice: int,
        delta: dict[str, Any],
        reason: str | None,
        stop_reason: int | str | None,
        count: int,
        scored: dict[str, Any] | None = None,
        tokens: list[int] | None = None,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> bytes:
        told: dict[str, Any] = {
            "index": choice,
            "delta": delta,
            "logprobs": scored,
            "finish_reason": reason,
        }
        if reason is not None:
            told["stop_reason"] = stop_reason
        if tokens is not None:
            told["token_ids"] = tokens
        event: dict[str, Any] = {**self._head.fields, "choices": [told], **more}
        if self._tally.wanted:
            event["usage"] = self._tally.add(count)
        return data(event)

    def last_event(self, counts: Counts) -> bytes:
        usage = self._head.usage_event(counts) if wants_usage(self._body) else b""
        return usage + DONE

    def error_event(self, error: WeirError) -> bytes:
        return error_event(error)

    def whole(self, choices: Sequence[Collected], counts: Counts) -> bytes:
        answer: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created_s,
            "model": self._body.model,
            "choices": [self._choice(i, choice) for i, choice in enumerate(choices)],
            "usage": counts.usage(),
            "service_tier": None,
            "system_fingerprint": None,
            "prompt_logprobs": None,
        }
        if self._body.wants_prompt_logprobs is not None:
            answer["prompt_logprobs"] = prompt_logprobs(choices[0].prompt_logprobs)
        if self._body.return_token_ids:
            answer["prompt_token_ids"] = self._prompts[0]
        return orjson.dumps(answer, option=orjson.OPT_NON_STR_KEYS)

    def _choice(self, index: int, choice: Collected) -> dict[str, Any]:
        text: str | None = self._body.echoed_text + choice.text
        if choice.calls and not text:
            text = None
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text,
            "refusal": None,
            "annotations": [],
        }
        if choice.reasoning:
            message["reasoning"] = message["reasoning_content"] = "".join(choice.reasoning)
        if choice.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in choice.calls
            ]
        told: dict[str, Any] = {
            "index": index,
            "message": message,
            "logprobs": _logprobs(choice.logprobs, self._body),
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }
        if self._body.return_token_ids:
            told["token_ids"] = choice.tokens
        return told


def _call_delta(call: wire.CallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": call.arguments}
    if not call.id:
        return {"index": call.index, "function": function}
    return {
        "index": call.index,
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, **function},
    }


def _logprobs(scored: Sequence[wire.Scored], body: ChatBody) -> dict[str, Any] | None:
    if body.wants_logprobs is None or not scored:
        return None
    by_id = body.return_tokens_as_token_ids
    return {
        "content": [
            {**_token(token, by_id), "top_logprobs": [_token(t, by_id) for t in token.top]}
            for token in scored
        ],
        "refusal": None,
    }


def _token(scored: wire.Scored, by_id: bool) -> dict[str, Any]:
    return {
        "token": token_name(scored, by_id),
        "logprob": scored.logprob,
        "bytes": token_bytes(scored.token),
    }
