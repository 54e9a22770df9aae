"""What admission wants to know of a request beforehand."""

from __future__ import annotations

from typing import NamedTuple


class Foreseen(NamedTuple):
    """If the request were dispatched now: prompt tokens that even the best holder of its prefix
    has to compute, and seconds until its first and its last token."""

    uncached_tokens: int
    first_token_s: float = 0.0
    last_token_s: float = 0.0
