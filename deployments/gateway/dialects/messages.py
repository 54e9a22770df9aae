"""Anthropic's messages: ``POST /v1/messages``, and ``POST /v1/messages/count_tokens``.

A body is turned into the chat body that means the same, so what chat has (features in the prompt,
the student, images) is there without a word about this dialect anywhere else.
"""

from __future__ import annotations

from typing import Any

import msgspec

from deployments import wire
from deployments.gateway.bodies.anthropic import CountTokensBody, MessagesBody
from deployments.gateway.bodies.from_anthropic import chat_body
from deployments.gateway.bodies.parsing import parse_body
from deployments.gateway.bodies.requests import ChatBody
from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.dialects.base import Prompts, Writer
from deployments.gateway.dialects.chat import ChatDialect
from deployments.gateway.dialects.message_writer import (
    PING,
    MessageWriter,
    error_body,
    error_event,
)
from deployments.gateway.dialects.tokenizing import ToldWriter, prompt_ids
from deployments.gateway.encoding import Encoding
from deployments.gateway.prompts import PromptEncoder
from weir.errors import WeirError


class MessagesDialect(ChatDialect):
    """See :class:`deployments.gateway.dialects.base.Dialect`. Behind the parser it is chat."""

    name = "messages"
    path = "/v1/messages"
    family = "anthropic"
    summary = "Answer a conversation, as Anthropic's clients have it"
    body: Any = MessagesBody
    keep_alive = PING

    def parse(self, raw: bytes, unknown: Unknown | None = None) -> ChatBody:
        return chat_body(parse_body(self.body, raw, unknown))

    def submission(
        self, body: ChatBody, prompt: list[int], max_tokens: int, reasons: bool
    ) -> wire.Submit:
        submit = super().submission(body, prompt, max_tokens, reasons)
        if body.stop is not None and submit.chat is None:
            # A plain stream does not tell which of the sequences ended it.
            return msgspec.structs.replace(submit, chat={})
        return submit

    def writer(
        self,
        body: ChatBody,
        request_id: str,
        created_s: int,
        prompts: Prompts,
        encoder: PromptEncoder,
    ) -> Writer:
        return MessageWriter(body.model, request_id, sum(map(len, prompts)))

    def error_body(self, error: WeirError) -> dict[str, Any]:
        return error_body(error)

    def error_event(self, error: WeirError) -> bytes:
        return error_event(error)


class CountTokensDialect(MessagesDialect):
    """How long the prompt of the same messages would be. Nothing is generated, so nothing is
    admitted, charged or billed."""

    name = "count_tokens"
    path = "/v1/messages/count_tokens"
    summary = "Count the tokens of a conversation, as Anthropic's clients have it"
    body: Any = CountTokensBody

    def choices(self, body: ChatBody) -> int:
        return 0

    async def prompts(self, body: ChatBody, encoding: Encoding) -> list[list[int]]:
        return [await prompt_ids(body, encoding)]

    def writer(
        self,
        body: ChatBody,
        request_id: str,
        created_s: int,
        prompts: Prompts,
        encoder: PromptEncoder,
    ) -> Writer:
        return ToldWriter({"input_tokens": sum(map(len, prompts))})
