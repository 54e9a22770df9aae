"""One model's prompts become token ids, off the event loop where they are long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from deployments.gateway.bodies.generating import Prompt
from deployments.gateway.conversation import Conversation
from deployments.gateway.off_loop import INLINE_BELOW, OffLoop
from deployments.gateway.prompts import PromptEncoder
from weir.errors import BadRequestError

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Encoding:
    """For one request. ``context``: the model's context length in tokens (0: not known now);
    ``body_bytes``: the length of the request's body."""

    encoder: PromptEncoder
    off_loop: OffLoop
    context: int
    tenant: str
    body_bytes: int

    def unbounded(self) -> Encoding:
        """The same, for prompts that no replica is asked to hold."""
        return replace(self, context=0)

    async def run(self, size: int, read: Callable[[PromptEncoder], ResultT]) -> ResultT:
        """What ``read`` makes with the model's encoder; ``size`` in characters, or so.

        Raises:
            WeirError: what ``read`` raises.
            OverloadedError: too many long prompts are being read.
        """
        return await self.off_loop.run(self.tenant, size, lambda: read(self.encoder))

    async def chat(self, read: Callable[[], Conversation]) -> list[int]:
        """Token ids of the conversation that ``read`` makes of the body.

        Raises:
            BadRequestError: the model's chat template refuses it.
            ContextLengthError: it is too long for certain.
            OverloadedError: too many long prompts are being read.
        """
        if self.body_bytes >= INLINE_BELOW:
            return await self.run(self.body_bytes, lambda _: self._encode_long(read()))
        conversation = read()  # may be longer than the body, where it goes on from an earlier one
        at_most = self._at_most
        return await self.run(
            conversation.text_size(), lambda encoder: encoder.encode_chat(conversation, at_most)
        )

    async def prompts(
        self, prompts: Sequence[Prompt], field: str, special: bool
    ) -> list[list[int]]:
        """Token ids of plain prompts, which may be ids already. ``field`` is their name in error
        messages; ``special``: with the tokenizer's own special tokens.

        Raises:
            BadRequestError: one is not valid Unicode, or an id is out of range.
            ContextLengthError: one is too long for certain.
            OverloadedError: too many long prompts are being read.
        """
        several = len(prompts) > 1

        def encode(_: PromptEncoder) -> list[list[int]]:
            named = [f"{field}[{i}]" if several else field for i in range(len(prompts))]
            return [
                self._encode(prompt, name, special)
                for prompt, name in zip(prompts, named, strict=True)
            ]

        # All together: a thousand short texts take as long as one that is long.
        return await self.run(sum(map(len, prompts)), encode)

    def checked(self, ids: list[int], field: str) -> list[int]:
        """The same ids.

        Raises:
            BadRequestError: one is out of the model's range.
        """
        limit = self.encoder.vocabulary_size
        if ids and max(ids) >= limit:
            place = next(place for place, token in enumerate(ids) if token >= limit)
            raise BadRequestError(
                f"{field}[{place}]: token id {ids[place]} is not below {limit}.",
                param=f"{field}[{place}]",
            )
        return ids

    @property
    def _at_most(self) -> int | None:
        return self.context or None

    def _encode_long(self, conversation: Conversation) -> list[int]:
        if self.context:
            self.encoder.check_unseen(conversation, self.context)
        return self.encoder.encode_chat(conversation, self._at_most)

    def _encode(self, prompt: Prompt, field: str, special: bool) -> list[int]:
        if isinstance(prompt, str):
            return self.encoder.encode_text(prompt, special=special, at_most=self._at_most)
        return self.checked(prompt, field)
