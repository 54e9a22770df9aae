"""Bodies that have texts compared: ``/v1/rerank`` as Jina's and Cohere's clients send it, and
vLLM's ``/v1/score``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from deployments.gateway.bodies.known_fields import HINTS
from deployments.gateway.bodies.parsing import Count, refuse
from deployments.gateway.bodies.pooling import PoolingFields
from deployments.gateway.reading import Cut

#: Texts that one request may have compared, as for embeddings.
MAX_TEXTS = 2048
_NO_TEMPLATE = "models that score a prompt of their own template are not supported"


def _plain(value: Any) -> Any:
    # Jina's and Cohere's clients may send objects with the text in them.
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return value["text"]
    if isinstance(value, dict):
        refuse("only texts can be compared here")
    return value


Text = Annotated[str, BeforeValidator(_plain)]
Texts = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS), Tag("<texts>")],
    Discriminator(lambda value: "<texts>" if isinstance(value, list) else "<text>"),
]


def as_texts(texts: str | list[str]) -> list[str]:
    """One text or several as a list."""
    return [texts] if isinstance(texts, str) else texts


class ComparingFields(PoolingFields):
    """What rerank and score share. ``max_tokens_per_query`` and ``max_tokens_per_doc``: so many
    tokens of a text are read (0: all). ``use_activation``: whether a cross-encoder's score is
    squashed, mostly to between 0 and 1."""

    ignored: ClassVar = HINTS | {"max_chunks_per_doc"}
    refused: ClassVar = PoolingFields.refused | {
        "instruction": _NO_TEMPLATE,
        "chat_template_kwargs": _NO_TEMPLATE,
    }

    max_tokens_per_query: Count = 0
    max_tokens_per_doc: Count = 0
    use_activation: bool | None = None

    def cut(self) -> Cut:
        return Cut(
            self.truncate_prompt_tokens,
            self.truncation_side,
            self.max_tokens_per_query or None,
            self.max_tokens_per_doc or None,
        )

    def firsts(self) -> list[str]:
        """The texts on the left: one, or as many as on the right."""
        raise NotImplementedError

    def seconds(self) -> list[str]:
        """The texts on the right."""
        raise NotImplementedError


class RerankBody(ComparingFields):
    """``POST /v1/rerank``. ``top_n``: so many results (0: all). ``return_documents``: with the
    texts."""

    refused: ClassVar = ComparingFields.refused | {"rank_fields": "send each document as a text"}

    query: Text
    documents: Texts
    top_n: Count = 0
    return_documents: bool = True

    def firsts(self) -> list[str]:
        return [self.query]

    def seconds(self) -> list[str]:
        return as_texts(self.documents)


#: The names under which vLLM's clients send the two sides.
_SIDES = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)


class ScoreBody(ComparingFields):
    """``POST /v1/score``: one text against several, or as many against as many. The two sides have
    one of four pairs of names."""

    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None

    @model_validator(mode="after")
    def _sides_agree(self) -> ScoreBody:
        given = {name for side in _SIDES for name in side if getattr(self, name) is not None}
        if given not in [set(side) for side in _SIDES]:
            refuse("needs text_1 and text_2, or queries and documents")
        first, second = len(self.firsts()), len(self.seconds())
        if first not in (1, second):
            name = next(left for left, _ in _SIDES if getattr(self, left) is not None)
            refuse(f"has {first} texts where 1 or {second} are needed", name)
        return self

    def firsts(self) -> list[str]:
        return self._side(0)

    def seconds(self) -> list[str]:
        return self._side(1)

    def _side(self, place: int) -> list[str]:
        names = dict.fromkeys(side[place] for side in _SIDES)
        return as_texts(next(t for name in names if (t := getattr(self, name)) is not None))
