"""What moving KV blocks from one replica to another takes, learned online.

``seconds = latency + tokens * token_s``. The slope is the median of the slopes between all pairs of
the last transfers, the latency the median of what is left (Theil 1950; Sen, "Estimates of the
regression coefficient based on Kendall's tau", JASA 1968): up to 29 % of the samples may be
anything. That matters here, because the first transfer between two vLLM replicas by NIXL takes
seconds (they connect then), and a transfer that meets others on the same link waits for them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import combinations
from statistics import median


@dataclass(frozen=True, slots=True)
class TransferParams:
    """What is believed before ``least`` transfers were seen, ``latency_s`` and ``token_s``: 128 KiB
    a token (Llama-3.1-8B, bf16) at 24 GB/s, what Mooncake's transfer engine gets of a 400 Gb/s
    card. ``remembered``: transfers that count; ``every``: how many come between two estimates."""

    latency_s: float = 0.01
    token_s: float = 5.5e-6
    least: int = 8
    remembered: int = 32
    every: int = 8


class TransferBook:
    """One per model."""

    def __init__(self, params: TransferParams | None = None) -> None:
        self._params = params or TransferParams()
        self._seen: deque[tuple[int, float]] = deque(maxlen=self._params.remembered)
        self._new = 0
        self.latency_s = self._params.latency_s
        self.token_s = self._params.token_s

    def predict_s(self, tokens: float) -> float:
        """Seconds until ``tokens`` tokens' blocks are there; nothing to move takes no time."""
        return self.latency_s + tokens * self.token_s if tokens > 0 else 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """A transfer of ``tokens`` tokens' blocks took ``seconds``. Empty ones say nothing."""
        if tokens <= 0 or seconds < 0.0:
            return
        self._seen.append((tokens, seconds))
        self._new += 1
        if len(self._seen) >= self._params.least and self._new >= self._params.every:
            self._new = 0
            self._estimate()

    def _estimate(self) -> None:
        pairs = combinations(self._seen, 2)
        slopes = [(t - s) / (n - m) for (m, s), (n, t) in pairs if n != m]
        # Transfers that are all of one size say nothing of the slope.
        self.token_s = max(0.0, median(slopes)) if slopes else self.token_s
        self.latency_s = max(0.0, median(s - n * self.token_s for n, s in self._seen))
