"""What models answer that read and do not write: embeddings, scores, rankings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deployments.testing.kinds.bodies import text_of
from deployments.testing.kinds.kind import Kind, Read
from deployments.testing.kinds.reading import read_embeddings, read_ranking, read_scores
from deployments.testing.kinds.right import right_cosines, right_score, right_vector

#: Of a model whose engine scores pairs. It chats too, which none does: the suite has chat beside
#: every kind.
_PAIRS = frozenset({"generate", "score"})


def _rerank(number: int) -> dict[str, Any]:
    documents = [f"w{i} {text_of(number)}" for i in (4, 5, 6)]
    return {"query": text_of(number), "documents": documents}


def _score(number: int) -> dict[str, Any]:
    return {"text_1": text_of(number), "text_2": [f"w{i} {text_of(number)}" for i in (4, 5)]}


def _of_embeddings(name: str, path: str, body: Any, read: Read, choices: int) -> Kind:
    return Kind(name, path, body, read, None, right_cosines, streams=False, choices=choices)


def _of_pairs(name: str, path: str, body: Any, read: Read, choices: int) -> Kind:
    return Kind(name, path, body, read, right_score, streams=False, choices=choices, tasks=_PAIRS)


POOLING: Sequence[Kind] = (
    Kind(
        "embeddings",
        "/v1/embeddings",
        lambda n: {"input": [text_of(n), f"{text_of(n)} w4"]},
        read_embeddings,
        right_vector,
        streams=False,
        choices=2,
    ),
    _of_embeddings("rerank", "/v1/rerank", _rerank, read_ranking, 4),
    _of_embeddings("score", "/v1/score", _score, read_scores, 3),
    _of_pairs("rerank-pairs", "/v1/rerank", _rerank, read_ranking, 3),
    _of_pairs("score-pairs", "/v1/score", _score, read_scores, 2),
)
