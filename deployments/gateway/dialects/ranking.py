"""Texts compared with each other: ``POST /v1/rerank``, in the shape of Jina and Cohere, and
``POST /v1/score``, in vLLM's.

A model of either kind can answer. A cross-encoder reads each pair and says how well the second text
suits the first: one stream a pair. Of an embedding model, each text is a stream, and the score is
the cosine of the two embeddings.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import orjson

from deployments import wire
from deployments.gateway.bodies.parsing import parse_body
from deployments.gateway.bodies.ranking import ComparingFields, RerankBody, ScoreBody
from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.dialects.base import Dialect, Prompts, Writer
from deployments.gateway.dialects.openai import OpenAiDialect, WholeWriter
from deployments.gateway.encoding import Encoding
from deployments.gateway.outputs import Collected, Counts
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.reading import Cut, PairIds, pair_ids, text_ids
from weir.errors import BadRequestError

BodyT = TypeVar("BodyT", bound=ComparingFields)


class _Comparing(OpenAiDialect, ABC, Generic[BodyT]):
    """What both paths have in common. ``pairs``: a cross-encoder answers, not embeddings.
    ``first_field`` and ``prompt_field`` name the two sides in errors."""

    name: str
    path: str
    first_field: str
    prompt_field: str
    summary: str
    body: type[BodyT]

    def __init__(self, pairs: bool = False) -> None:
        self.pairs = pairs

    def parse(self, raw: bytes, unknown: Unknown | None = None) -> BodyT:
        return parse_body(self.body, raw, unknown)

    @abstractmethod
    def written(
        self, body: BodyT, request_id: str, created_s: int, scores: list[float], tokens: int
    ) -> dict[str, Any]:
        """The answer."""

    def suited(self, tasks: frozenset[str]) -> Dialect | None:
        if "score" in tasks:
            return type(self)(pairs=True)
        return self if not tasks or "embed" in tasks else None

    async def prompts(self, body: BodyT, encoding: Encoding) -> list[list[int]]:
        firsts, seconds = body.firsts(), body.seconds()
        size = sum(map(len, firsts)) * (len(seconds) if self.pairs else 1)
        size += sum(map(len, seconds))
        read = self._read_pairs if self.pairs else self._read_texts
        return await encoding.run(size, lambda encoder: read(body, encoder, encoding.context))

    def _read_pairs(self, body: BodyT, encoder: PromptEncoder, context: int) -> list[list[int]]:
        cut, seconds = body.cut().within(context), body.seconds()
        firsts = body.firsts() * (len(seconds) // len(body.firsts()))
        at_most = context or None
        return [
            pair_ids(encoder, first, second, cut, at_most, f"{self.prompt_field}[{i}]")
            for i, (first, second) in enumerate(zip(firsts, seconds, strict=True))
        ]

    def _read_texts(self, body: BodyT, encoder: PromptEncoder, context: int) -> list[list[int]]:
        cut, at_most = body.cut().within(context), context or None
        made = []
        sides = (
            (self.first_field, body.firsts(), cut.first),
            (self.prompt_field, body.seconds(), cut.second),
        )
        for name, texts, most in sides:
            own = Cut(cut.whole, cut.side, most)
            for i, text in enumerate(texts):
                field = f"{name}[{i}]" if len(texts) > 1 else name
                ids = text_ids(encoder, text, True, own, at_most, field)
                if not ids:
                    raise BadRequestError(f"{field}: it has no tokens.", param=field)
                made.append(ids)
        return made

    def choices(self, body: BodyT) -> int:
        return len(body.seconds()) + (0 if self.pairs else len(body.firsts()))

    def output_limit(self, body: BodyT) -> int | None:
        return 0

    def limit_field(self, body: BodyT) -> str:
        return self.prompt_field

    def submission(
        self, body: BodyT, prompt: list[int], max_tokens: int, reasons: bool
    ) -> wire.Embed:
        if isinstance(prompt, PairIds):
            return wire.Embed(0, "", prompt, pair=wire.Pair(prompt.second, body.use_activation))
        return wire.Embed(0, "", prompt)

    def writer(
        self,
        body: BodyT,
        request_id: str,
        created_s: int,
        prompts: Prompts,
        encoder: PromptEncoder,
    ) -> Writer:
        return _ScoreWriter(self, body, request_id, created_s)


class RerankDialect(_Comparing[RerankBody]):
    """See :class:`deployments.gateway.dialects.base.Dialect`."""

    name = "rerank"
    path = "/v1/rerank"
    first_field = "query"
    prompt_field = "documents"
    summary = "Order documents by how well they suit a query (where the model can)"
    body = RerankBody

    def written(
        self, body: RerankBody, request_id: str, created_s: int, scores: list[float], tokens: int
    ) -> dict[str, Any]:
        documents = body.seconds()
        best = sorted(range(len(scores)), key=lambda i: -scores[i])
        results: list[dict[str, Any]] = []
        for i in best[: body.top_n or None]:
            results.append({"index": i, "relevance_score": scores[i]})
            if body.return_documents:
                results[-1]["document"] = {"text": documents[i]}
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {
            "id": f"rerank-{request_id}",
            "model": body.model,
            "usage": usage,
            "results": results,
        }


class ScoreDialect(_Comparing[ScoreBody]):
    """See :class:`deployments.gateway.dialects.base.Dialect`."""

    name = "score"
    path = "/v1/score"
    first_field = "text_1"
    prompt_field = "text_2"
    summary = "Say how well texts suit each other (where the model can)"
    body = ScoreBody

    def written(
        self, body: ScoreBody, request_id: str, created_s: int, scores: list[float], tokens: int
    ) -> dict[str, Any]:
        return {
            "id": f"score-{request_id}",
            "object": "list",
            "created": created_s,
            "model": body.model,
            "data": [
                {"index": i, "object": "score", "score": score} for i, score in enumerate(scores)
            ],
            "usage": Counts(tokens).usage(),
        }


class _ScoreWriter(WholeWriter, Generic[BodyT]):
    """How well texts suit each other."""

    def __init__(
        self, dialect: _Comparing[BodyT], body: BodyT, request_id: str, created_s: int
    ) -> None:
        self._dialect = dialect
        self._body = body
        self._id = request_id
        self._created_s = created_s

    def whole(self, choices: Sequence[Collected], counts: Counts) -> bytes:
        vectors = [choice.vector for choice in choices]
        if self._dialect.pairs:
            scores = [vector[0] for vector in vectors]
        else:
            scores = _cosines(vectors, len(self._body.firsts()))
        told = self._dialect.written(
            self._body, self._id, self._created_s, scores, counts.prompt_tokens
        )
        return orjson.dumps(told)


def _cosines(vectors: Sequence[Sequence[float]], firsts: int) -> list[float]:
    """Of the second texts' embeddings, each with its first text's."""
    lengths = [math.sqrt(_product(vector, vector)) for vector in vectors]
    scores = []
    for number, place in enumerate(range(firsts, len(vectors))):
        first = number if firsts > 1 else 0
        both = lengths[first] * lengths[place]
        scores.append(_product(vectors[first], vectors[place]) / both if both else 0.0)
    return scores


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return float(sum(map(operator.mul, one, other)))
