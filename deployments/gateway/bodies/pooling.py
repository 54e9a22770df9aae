"""What bodies for models that read and do not write have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from deployments.gateway.bodies.known_fields import HINTS, REFUSED
from deployments.gateway.bodies.parsing import Body, Name, Whole, refuse
from deployments.gateway.reading import Cut


class PoolingFields(Body):
    """What requests to a model that reads have in common: how prompts are cut to length.

    ``truncate_prompt_tokens``: so many tokens of each prompt are kept, -1: as many as the model's
    context holds. ``truncation_side``: which ones.
    """

    ignored: ClassVar = HINTS
    refused: ClassVar = {name: REFUSED[name] for name in ("priority", "cache_salt", "request_id")}

    model: Name
    truncate_prompt_tokens: Annotated[Whole, Field(ge=-1, le=2**31 - 1)] | None = None
    truncation_side: Literal["left", "right"] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None

    @model_validator(mode="after")
    def _something_is_kept(self) -> PoolingFields:
        if self.truncate_prompt_tokens == 0:
            refuse("keeps nothing; send -1 for the model's whole context", "truncate_prompt_tokens")
        return self

    def cut(self) -> Cut:
        """How prompts are cut to length."""
        return Cut(self.truncate_prompt_tokens, self.truncation_side)
