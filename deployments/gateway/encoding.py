"""One model's prompts become token ids, off the event loop where they are long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from deployments.gateway.conversation import Conversation
from deployments.gateway.off_loop import OffLoop
from deployments.gateway.prompts import PromptEncoder
from weir.errors import BadRequestError

ResultT = TypeVar("ResultT")


class Encoding:
    """``context``: the model's context length in tokens (0: not known now)."""

    def __init__(self, encoder: PromptEncoder, off_loop: OffLoop, context: int) -> None:
        self.context = context
        self._encoder = encoder
        self._off_loop = off_loop
        self._at_most = context or None

    @property
    def truncation_side(self) -> str:
        """The end at which the model's tokenizer cuts prompts where nobody says which."""
        return self._encoder.truncation_side

    def unbounded(self) -> Encoding:
        """The same, for prompts that no replica is asked to hold."""
        return Encoding(self._encoder, self._off_loop, 0)

    async def run(self, size: int, read: Callable[[PromptEncoder], ResultT]) -> ResultT:
        """What ``read`` makes with the model's encoder; ``size`` in characters, or so.

        Raises:
            WeirError: what ``read`` raises.
            OverloadedError: too many long prompts are being read.
        """
        encoder = self._encoder
        return await self._off_loop.run(size, lambda: read(encoder))

    async def chat(self, conversation: Conversation) -> list[int]:
        """Token ids of a conversation.

        Raises:
            BadRequestError: the model's chat template refuses it.
            ContextLengthError: it is too long for certain.
            OverloadedError: too many long prompts are being read.
        """
        encode = self._encoder.encode_chat
        size = conversation.text_size()
        return await self._off_loop.run(size, lambda: encode(conversation, self._at_most))

    async def prompt(self, prompt: str | list[int], field: str, special: bool) -> list[int]:
        """Token ids of a plain prompt, which may be ids already. ``field`` is its name in error
        messages; ``special``: with the tokenizer's own special tokens.

        Raises:
            BadRequestError: it is not valid Unicode, or an id is out of range.
            ContextLengthError: it is too long for certain.
            OverloadedError: too many long prompts are being read.
        """
        if not isinstance(prompt, str):
            return self.checked(prompt, field)
        encode = self._encoder.encode_text
        return await self._off_loop.run(
            len(prompt), lambda: encode(prompt, special=special, at_most=self._at_most)
        )

    def checked(self, ids: list[int], field: str) -> list[int]:
        """The same ids.

        Raises:
            BadRequestError: one is out of the model's range.
        """
        limit = self._encoder.vocabulary_size
        if ids and max(ids) >= limit:
            place = next(place for place, token in enumerate(ids) if token >= limit)
            raise BadRequestError(
                f"{field}[{place}]: token id {ids[place]} is not below {limit}.",
                param=f"{field}[{place}]",
            )
        return ids
