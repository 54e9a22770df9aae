"""vLLM's log-probabilities as the wire carries them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deployments.wire import Scored

#: JSON has no infinity: vLLM's own servers give this for a probability of zero.
FLOOR = -9999.0
Decode = Callable[[list[int]], str]


def scored_output(
    tokens: Sequence[int], positions: Sequence[Any], top: int, decode: Decode
) -> list[Scored]:
    """Of generated tokens. ``positions`` has vLLM's mapping from token id to Logprob for each."""
    pairs = zip(tokens, positions, strict=False)
    return [_scored(token, found, top, decode) for token, found in pairs]


def scored_prompt(
    tokens: Sequence[int], positions: Sequence[Any], top: int, decode: Decode
) -> list[Scored]:
    """Of the prompt's tokens; the first has no log-probability."""
    pairs = zip(tokens, positions, strict=False)
    return [
        Scored(token, decode([token]), None)
        if found is None
        else _scored(token, found, top, decode)
        for token, found in pairs
    ]


def _scored(token: int, found: Mapping[int, Any], top: int, decode: Decode) -> Scored:
    # vLLM puts the chosen token first, whatever its rank, and the likeliest behind it.
    ranked = sorted(found.items(), key=lambda item: item[1].rank or 0)[:top]
    best = [
        Scored(i, _text(i, lp, decode), max(lp.logprob, FLOOR), rank=lp.rank) for i, lp in ranked
    ]
    chosen = found.get(token)
    if chosen is None:
        return Scored(token, decode([token]), None, best)
    logprob = max(chosen.logprob, FLOOR)
    return Scored(token, _text(token, chosen, decode), logprob, best, chosen.rank)


def _text(token: int, found: Any, decode: Decode) -> str:
    text: str | None = found.decoded_token
    return decode([token]) if text is None else text
