"""Bodies that only have a prompt looked at, as vLLM's servers take them: ``/tokenize`` and
``/detokenize``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Discriminator, Field, RootModel, Tag, model_validator

from deployments.gateway.bodies.known_fields import HINTS
from deployments.gateway.bodies.parsing import Body, Name, TokenId, refuse
from deployments.gateway.bodies.requests import ChatBody, CompletionBody


class TokenizeChatBody(ChatBody):
    """A conversation, with every field that a chat may have: those that decide on its prompt count.
    ``return_token_strs``: also each token as the vocabulary spells it."""

    return_token_strs: bool = False


class TokenizePromptBody(CompletionBody):
    """A plain prompt, with every field that a completion may have."""

    return_token_strs: bool = False

    @model_validator(mode="after")
    def _is_one_text(self) -> TokenizePromptBody:
        if not isinstance(self.prompt, str):
            refuse("only one text can be tokenized", "prompt")
        return self


def _kind_of_body(value: Any) -> str:
    return "<messages>" if isinstance(value, dict) and "messages" in value else "<prompt>"


class TokenizeBody(
    RootModel[
        Annotated[
            Annotated[TokenizeChatBody, Tag("<messages>")]
            | Annotated[TokenizePromptBody, Tag("<prompt>")],
            Discriminator(_kind_of_body),
        ]
    ]
):
    """``POST /tokenize``: ``messages``, or else ``prompt``."""


class DetokenizeBody(Body):
    """``POST /detokenize``."""

    ignored: ClassVar = HINTS

    model: Name
    tokens: Annotated[list[TokenId], Field(max_length=2**20)]
