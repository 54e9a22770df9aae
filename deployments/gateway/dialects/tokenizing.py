"""vLLM's ``POST /tokenize`` and ``/detokenize``: what a prompt is to the model, and back.

Nothing is generated, so nothing is admitted, charged or billed; a key that may use the model is
needed all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from deployments import wire
from deployments.gateway.bodies.looking import (
    DetokenizeBody,
    TokenizeBody,
    TokenizeChatBody,
    TokenizePromptBody,
)
from deployments.gateway.bodies.parsing import parse_body
from deployments.gateway.bodies.requests import ChatBody, CompletionBody
from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.dialects.base import Dialect, Prompts, Writer
from deployments.gateway.dialects.openai import OpenAiDialect, WholeWriter
from deployments.gateway.encoding import Encoding
from deployments.gateway.outputs import Collected, Counts
from deployments.gateway.prompts import PromptEncoder
from weir.errors import NoReplicaError, UnsupportedError


async def prompt_ids(body: ChatBody | CompletionBody, encoding: Encoding) -> list[int]:
    """Token ids of the one prompt of a body that is only looked at: the same as if it were to be
    answered, however long it is.

    Raises:
        UnsupportedError: a part of it is not text.
        WeirError: what :class:`Encoding` raises.
    """
    whole = encoding.unbounded()
    if isinstance(body, CompletionBody):
        (ids,) = await whole.prompts(body.prompts()[:1], "prompt", body.add_special_tokens)
        return ids
    if body.has_other_parts:
        raise UnsupportedError(
            "The tokens of images are known only where the model runs; they cannot be counted.",
            param="messages",
        )
    return await whole.chat(body.conversation)


class LookingDialect(OpenAiDialect):
    """What the kinds of request share that ask no replica for anything."""

    def choices(self, body: Any) -> int:
        return 0

    def output_limit(self, body: Any) -> int | None:
        return 0

    def limit_field(self, body: Any) -> str:
        return "max_tokens"

    def submission(
        self, body: Any, prompt: list[int], max_tokens: int, reasons: bool
    ) -> wire.Submit:
        raise AssertionError("nothing is asked of a replica")


class _Read(list[int]):
    """A prompt's token ids. ``strings``: each token as the vocabulary spells it, if asked for."""

    context_tokens = 0
    strings: list[str] | None = None


class TokenizeDialect(LookingDialect):
    """See :class:`deployments.gateway.dialects.base.Dialect`."""

    name = "tokenize"
    path = "/tokenize"
    prompt_field = "prompt"
    summary = "The token ids of a prompt, features included, as vLLM's servers tell them"
    body = TokenizeBody

    def parse(
        self, raw: bytes, unknown: Unknown | None = None
    ) -> TokenizeChatBody | TokenizePromptBody:
        body = parse_body(TokenizeBody, raw, unknown).root
        return body.model_copy(update={"stream": False}) if body.stream else body

    def suited(self, tasks: frozenset[str]) -> Dialect | None:
        return self

    async def prompts(
        self, body: TokenizeChatBody | TokenizePromptBody, encoding: Encoding
    ) -> list[list[int]]:
        if not encoding.context:
            raise NoReplicaError(
                f"The model {body.model!r} has no replica now, so its context is not known.",
                retry_after_s=5.0,
            )
        ids = _Read(await prompt_ids(body, encoding))
        ids.context_tokens = encoding.context
        if body.return_token_strs:
            ids.strings = await encoding.run(len(ids), lambda encoder: encoder.token_strings(ids))
        return [ids]

    def writer(
        self,
        body: TokenizeChatBody | TokenizePromptBody,
        request_id: str,
        created_s: int,
        prompts: Prompts,
        encoder: PromptEncoder,
    ) -> Writer:
        (ids,) = prompts
        assert isinstance(ids, _Read)
        return ToldWriter(
            {
                "count": len(ids),
                "max_model_len": ids.context_tokens,
                "tokens": list(ids),
                "token_strs": ids.strings,
            }
        )


class _Text(list[int]):
    """Token ids with their text."""

    text = ""


class DetokenizeDialect(LookingDialect):
    """See :class:`deployments.gateway.dialects.base.Dialect`."""

    name = "detokenize"
    path = "/detokenize"
    prompt_field = "tokens"
    summary = "The text of token ids, as vLLM's servers tell it"
    body = DetokenizeBody

    def parse(self, raw: bytes, unknown: Unknown | None = None) -> DetokenizeBody:
        return parse_body(DetokenizeBody, raw, unknown)

    def suited(self, tasks: frozenset[str]) -> Dialect | None:
        return self

    async def prompts(self, body: DetokenizeBody, encoding: Encoding) -> list[list[int]]:
        ids = _Text(encoding.checked(body.tokens, "tokens"))
        ids.text = await encoding.run(len(ids), lambda encoder: encoder.decode(ids))
        return [ids]

    def writer(
        self,
        body: DetokenizeBody,
        request_id: str,
        created_s: int,
        prompts: Prompts,
        encoder: PromptEncoder,
    ) -> Writer:
        (ids,) = prompts
        assert isinstance(ids, _Text)
        return ToldWriter({"prompt": ids.text})


class ToldWriter(WholeWriter):
    """An answer that is known before anything would be generated."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told

    def whole(self, choices: Sequence[Collected], counts: Counts) -> bytes:
        return orjson.dumps(self._told)
