"""Texts, and pairs of them, become the prompts of models that read and do not write: embedding
models and cross-encoders. Texts may be cut to length here, as the engine's own server cuts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer

from deployments.gateway.prompts import PromptEncoder
from weir.errors import BadRequestError, ContextLengthError


@dataclass(frozen=True, slots=True)
class Cut:
    """How many tokens are kept (None: all).

    ``whole``: of the prompt, special tokens included. ``side`` ``right`` keeps its first tokens and
    ``left`` its last ones, whatever they are; None keeps the special tokens and the beginning of
    each text, of the longer text less. ``first`` and ``second``: of each text alone.
    """

    whole: int | None = None
    side: Literal["left", "right"] | None = None
    first: int | None = None
    second: int | None = None

    def within(self, context: int) -> Cut:
        """The same, with ``whole`` in tokens where it was -1, which means the context of the model
        (0: not known now).

        Raises:
            BadRequestError: it is more than the context.
        """
        if self.whole is None:
            return self
        if not context:  # no replica is up, which is told later
            return Cut(max(self.whole, 0) or None, self.side, self.first, self.second)
        if self.whole > context:
            raise BadRequestError(
                f"truncate_prompt_tokens: this model's context is {context} tokens.",
                param="truncate_prompt_tokens",
            )
        whole = context if self.whole == -1 else self.whole
        return Cut(whole, self.side, self.first, self.second)

    def of(self, ids: list[int]) -> list[int]:
        """What is kept of ids that are there already."""
        if self.whole is None:
            return ids
        return ids[-self.whole :] if self.side == "left" else ids[: self.whole]


class PairIds(list[int]):
    """The token ids of a pair. ``second``: where the tokens of the second type begin."""

    second: int | None = None


def text_ids(
    encoder: PromptEncoder, text: str, special: bool, cut: Cut, at_most: int | None, field: str
) -> list[int]:
    """Token ids of one text. ``special``: with the tokenizer's special tokens; ``at_most``: the
    model's context (None: not known); ``field``: the text's name in errors.

    Raises:
        BadRequestError: it is not valid Unicode, or nothing is left of it.
        ContextLengthError: it is too long for certain, and not cut.
    """
    if cut == Cut():
        return encoder.encode_text(text, special=special, at_most=at_most)
    ids, _ = _cut_ids(encoder.tokenizer, [text], special, cut, field)
    return ids


def pair_ids(
    encoder: PromptEncoder, first: str, second: str, cut: Cut, at_most: int | None, field: str
) -> PairIds:
    """Token ids of two texts, joined as the tokenizer joins a pair. Raises as :func:`text_ids`."""
    if cut.whole is None and at_most is not None:
        fewest = encoder.fewest_tokens(first) + encoder.fewest_tokens(second)
        if fewest > at_most:
            raise ContextLengthError(
                f"{field}: the pair has at least {fewest} tokens; the model's context holds "
                f"{at_most}.",
                param=field,
            )
    ids, types = _cut_ids(encoder.tokenizer, [first, second], True, cut, field)
    made = PairIds(ids)
    made.second = types.index(1) if 1 in types else None
    return made


def _cut_ids(
    tokenizer: Tokenizer, texts: list[str], special: bool, cut: Cut, field: str
) -> tuple[list[int], list[int]]:
    """Ids and types."""
    try:
        parts = tokenizer.encode_batch(texts, add_special_tokens=False)
    except (TypeError, UnicodeEncodeError):
        raise BadRequestError(f"{field}: not valid Unicode.", param=field) from None
    for part, most in zip(parts, (cut.first, cut.second), strict=False):
        if most is not None:
            part.truncate(most)
    if cut.whole is not None and cut.side is None:
        added = tokenizer.num_special_tokens_to_add(len(texts) > 1) if special else 0
        lengths = _shares([len(part.ids) for part in parts], cut.whole - added)
        for part, most in zip(parts, lengths, strict=True):
            part.truncate(most)
    pair = parts[1] if len(parts) > 1 else None
    whole = tokenizer.post_process(parts[0], pair, special)
    ids, types = list(whole.ids), list(whole.type_ids)
    return cut.of(ids), cut.of(types)


def _shares(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens of each text fit into ``room``: the longer one gives way first (what
    Transformers calls ``longest_first``).

    Raises:
        BadRequestError: there is no room for the special tokens.
    """
    if room < 0:
        raise BadRequestError(
            "truncate_prompt_tokens: too few for the model's special tokens.",
            param="truncate_prompt_tokens",
        )
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    first, second = lengths
    if first + second <= room:
        return [first, second]
    half = room // 2
    if min(first, second) <= half:
        return [first, room - first] if first <= second else [room - second, second]
    return [half, room - half] if first <= second else [room - half, half]
