"""OpenAI's embeddings: ``POST /v1/embeddings``. Each input is a prompt, and a stream of its own."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Sequence

import orjson

from deployments import wire
from deployments.gateway.bodies.requests import EmbeddingBody, parse_body
from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.dialects.base import Dialect, Prompts, Writer
from deployments.gateway.dialects.openai import OpenAiDialect, WholeWriter
from deployments.gateway.encoding import Encoding
from deployments.gateway.outputs import Collected, Counts
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.reading import text_ids


class EmbeddingDialect(OpenAiDialect):
    """See :class:`deployments.gateway.dialects.base.Dialect`."""

    name = "embeddings"
    path = "/v1/embeddings"
    prompt_field = "input"
    summary = "Embed texts (where the model can)"
    body = EmbeddingBody

    def parse(self, raw: bytes, unknown: Unknown | None = None) -> EmbeddingBody:
        return parse_body(EmbeddingBody, raw, unknown)

    def suited(self, tasks: frozenset[str]) -> Dialect | None:
        return self if not tasks or "embed" in tasks else None

    async def prompts(self, body: EmbeddingBody, encoding: Encoding) -> list[list[int]]:
        several = body.prompts()
        named = len(several) > 1
        cut = body.cut().within(encoding.context)

        def read(encoder: PromptEncoder) -> list[list[int]]:
            at_most, made = encoding.context or None, []
            for i, prompt in enumerate(several):
                field = f"input[{i}]" if named else "input"
                if isinstance(prompt, str):
                    special = body.add_special_tokens
                    made.append(text_ids(encoder, prompt, special, cut, at_most, field))
                else:
                    made.append(cut.of(encoding.checked(prompt, field)))
            return made

        # All texts together: a thousand short ones take as long as a long one.
        return await encoding.run(sum(map(len, several)), read)

    def choices(self, body: EmbeddingBody) -> int:
        return len(body.prompts())

    def output_limit(self, body: EmbeddingBody) -> int | None:
        return 0

    def limit_field(self, body: EmbeddingBody) -> str:
        return "input"

    def submission(
        self, body: EmbeddingBody, prompt: list[int], max_tokens: int, reasons: bool
    ) -> wire.Embed:
        return wire.Embed(0, "", prompt, body.dimensions)

    def writer(
        self,
        body: EmbeddingBody,
        request_id: str,
        created_s: int,
        prompts: Prompts,
        encoder: PromptEncoder,
    ) -> Writer:
        return EmbeddingWriter(body)


class EmbeddingWriter(WholeWriter):
    """A list of vectors, in the order of the inputs."""

    def __init__(self, body: EmbeddingBody) -> None:
        self._body = body

    def whole(self, choices: Sequence[Collected], counts: Counts) -> bytes:
        encode = _base64 if self._body.encoding_format == "base64" else list
        listed = [
            {"object": "embedding", "index": i, "embedding": encode(choice.vector)}
            for i, choice in enumerate(choices)
        ]
        usage = {"prompt_tokens": counts.prompt_tokens, "total_tokens": counts.prompt_tokens}
        return orjson.dumps(
            {"object": "list", "data": listed, "model": self._body.model, "usage": usage}
        )


def _base64(vector: Sequence[float]) -> str:
    """Little-endian 32-bit floats, as OpenAI's clients decode them."""
    return base64.b64encode(array("f", vector).tobytes()).decode()
