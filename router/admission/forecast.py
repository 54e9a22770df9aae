"""What admission wants to know of a request beforehand."""

from __future__ import annotations

from typing import Protocol


class Expected(Protocol):
    """If the request were dispatched now. The times are worked out when asked for: without an SLO
    or a deadline nobody does."""

    @property
    def uncached_tokens(self) -> int:
        """Prompt tokens that even the best holder of its prefix has to compute."""
        ...

    def first_token_s(self) -> float:
        """Seconds until its first token."""
        ...

    def last_token_s(self) -> float:
        """Seconds until its last token."""
        ...
