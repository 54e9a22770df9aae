"""OpenAI's completions: ``POST /v1/completions``, one prompt or several, as text or token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from deployments import wire
from deployments.gateway.bodies.requests import CompletionBody, parse_body
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
    token_name,
    uncut,
    wants_usage,
)
from deployments.gateway.dialects.openai import OpenAiDialect
from deployments.gateway.encoding import Encoding
from deployments.gateway.outputs import Collected, Counts, Output, extra_of
from deployments.gateway.prompts import PromptEncoder
from weir.errors import WeirError


class CompletionDialect(OpenAiDialect):
    """See :class:`deployments.gateway.dialects.base.Dialect`."""

    name = "completions"
    path = "/v1/completions"
    prompt_field = "prompt"
    summary = "Continue a text"
    body = CompletionBody

    def parse(self, raw: bytes, unknown: Unknown | None = None) -> CompletionBody:
        return parse_body(CompletionBody, raw, unknown)

    def suited(self, tasks: frozenset[str]) -> Dialect | None:
        return self if not tasks or "generate" in tasks else None

    async def prompts(self, body: CompletionBody, encoding: Encoding) -> list[list[int]]:
        several, special = body.prompts(), body.add_special_tokens
        if body.truncate_prompt_tokens is None:
            return await encoding.prompts(several, "prompt", special)
        ids = await uncut(body, encoding).prompts(several, "prompt", special)
        return cut(body, encoding, ids)

    def choices(self, body: CompletionBody) -> int:
        return body.n * len(body.prompts())

    def output_limit(self, body: CompletionBody) -> int | None:
        # Only the prompt is scored: the engine still has to make a token, which nobody sees.
        return 1 if body.only_scores else body.max_output_tokens

    def limit_field(self, body: CompletionBody) -> str:
        return "max_tokens"

    def submission(
        self, body: CompletionBody, prompt: list[int], max_tokens: int, reasons: bool
    ) -> wire.Submit:
        return submission(body, prompt, max_tokens, reasons)

    def writer(
        self,
        body: CompletionBody,
        request_id: str,
        created_s: int,
        prompts: Prompts,
        encoder: PromptEncoder,
    ) -> Writer:
        echoed = _echoed(body, prompts, encoder) if body.echo else []
        return CompletionWriter(body, request_id, created_s, prompts, echoed)


class CompletionWriter:
    """``text_completion``, whole and in chunks."""

    def __init__(
        self,
        body: CompletionBody,
        request_id: str,
        created_s: int,
        prompts: Prompts,
        echoed: Sequence[str] = (),
    ) -> None:
        self._body = body
        self._echoed = echoed
        self._head = EventHead(body, f"cmpl-{request_id}", "text_completion", created_s)
        self._prompts = prompts
        self._tally = Tally(body, sum(map(len, prompts)))
        self._offsets: dict[int, int] = {}
        self._begun: set[int] = set()
        self._shown: set[int] = set()

    def event(self, choice: int, output: Output) -> bytes:
        if isinstance(output, wire.Embedded):
            return b""
        extra = extra_of(output)
        echo = self._echo(choice, extra)
        reason = output.finish_reason if isinstance(output, wire.Done) else None
        rich = extra is not None or self._tally.wanted or self._body.return_token_ids
        if not rich and not echo:
            return b'%b{"index":%d,"text":%b,"logprobs":null,"finish_reason":%b}]}\n\n' % (
                self._head.opening,
                choice,
                orjson.dumps(output.text),
                orjson.dumps(reason),
            )
        told = Collected()
        if not self._body.only_scores:
            told.add(output)
        told.finish_reason = reason or ""
        body = {**self._choice(choice, told, echo), "finish_reason": reason}
        event: dict[str, Any] = {**self._head.fields, "choices": [body]}
        if self._tally.wanted:
            event["usage"] = self._tally.add(len(output.tokens))
        return data(event)

    def _echo(self, choice: int, extra: wire.Extra | None) -> _Echo | None:
        """The prompt, in front of a choice's first output."""
        if choice in self._begun:
            return None
        self._begun.add(choice)
        if not self._body.echo:
            return None
        return _Echo(self._text(choice), list(extra.prompt_logprobs) if extra else [])

    def _text(self, choice: int) -> str:
        return self._echoed[choice // self._body.n]

    def last_event(self, counts: Counts) -> bytes:
        usage = self._head.usage_event(self._billed(counts)) if wants_usage(self._body) else b""
        return usage + DONE

    def error_event(self, error: WeirError) -> bytes:
        return error_event(error)

    def whole(self, choices: Sequence[Collected], counts: Counts) -> bytes:
        listed = []
        for i, choice in enumerate(choices):
            echo = _Echo(self._text(i), choice.prompt_logprobs) if self._body.echo else None
            told = choice
            if self._body.only_scores:
                told = Collected(finish_reason=choice.finish_reason)
            body = self._choice(i, told, echo)
            if self._body.prompt_logprobs is not None:
                body["prompt_logprobs"] = prompt_logprobs(choice.prompt_logprobs)
            listed.append({"stop_reason": None, **body})
        return orjson.dumps(
            {
                **self._head.fields,
                "choices": listed,
                "usage": self._billed(counts).usage(),
                "service_tier": None,
                "system_fingerprint": None,
            }
        )

    def _billed(self, counts: Counts) -> Counts:
        if not self._body.only_scores:
            return counts
        return Counts(counts.prompt_tokens, counts.cached_tokens, 0)

    def _choice(self, index: int, choice: Collected, echo: _Echo | None) -> dict[str, Any]:
        scored = [*(echo.logprobs if echo else ()), *choice.logprobs]
        text = (echo.text if echo else "") + choice.text
        told: dict[str, Any] = {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(index, scored),
            "finish_reason": choice.finish_reason or None,
        }
        if choice.stop_reason is not None:
            told["stop_reason"] = choice.stop_reason
        if self._body.return_token_ids:
            told["token_ids"] = choice.tokens
            if index not in self._shown:
                self._shown.add(index)
                told["prompt_token_ids"] = list(self._prompts[index // self._body.n])
        return told

    def _logprobs(self, choice: int, scored: Sequence[wire.Scored]) -> dict[str, Any] | None:
        """OpenAI's four lists. ``text_offset`` counts characters from the text's beginning."""
        if self._body.logprobs is None or not scored:
            return None
        by_id = self._body.return_tokens_as_token_ids
        offsets, at = [], self._offsets.get(choice, 0)
        for token in scored:
            offsets.append(at)
            at += len(token.token)
        self._offsets[choice] = at
        return {
            "text_offset": offsets,
            "tokens": [token_name(token, by_id) for token in scored],
            "token_logprobs": [token.logprob for token in scored],
            "top_logprobs": [
                {token_name(t, by_id): t.logprob for t in (*token.top, token)}
                if token.logprob is not None
                else None
                for token in scored
            ],
        }


class _Echo:
    """The prompt as it stands in front of an answer."""

    __slots__ = ("logprobs", "text")

    def __init__(self, text: str, logprobs: list[wire.Scored]) -> None:
        self.text = text
        self.logprobs = logprobs


def _echoed(body: CompletionBody, prompts: Prompts, encoder: PromptEncoder) -> list[str]:
    """Each prompt as text."""
    return [
        given if isinstance(given, str) else encoder.decode(ids)
        for given, ids in zip(body.prompts(), prompts, strict=True)
    ]
