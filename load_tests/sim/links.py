"""Moving KV blocks between engines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    """One card per engine, each way: ``bytes_per_s`` for one transfer after the other, and
    ``latency_s`` for each. ``token_bytes``: KV of one token."""

    name: str
    latency_s: float
    bytes_per_s: float
    token_bytes: int
    source: str = ""


LINK_400G = Link(
    name="400g",
    latency_s=5e-3,
    bytes_per_s=24e9,
    token_bytes=128 << 10,
    source=(
        "Mooncake's transfer engine moves 190 GB/s over eight cards of 400 Gb/s (Qin et al., FAST "
        "2025), 24 GB/s a card; 128 KiB of KV per token are Llama-3.1-8B's (32 layers, 8 KV heads "
        "of 128, bf16). 5 ms: asking for the blocks and an engine step to notice them"
    ),
)


class Links:
    """The cards of ``engines`` engines. A transfer needs the sender's and the receiver's, and waits
    for both."""

    def __init__(self, link: Link, engines: int) -> None:
        self._link = link
        self._sends_until_s = [0.0] * engines
        self._receives_until_s = [0.0] * engines

    def begin(self, now_s: float, sender: int, receiver: int, tokens: int) -> float:
        """Seconds until the KV of ``tokens`` tokens is there."""
        if tokens <= 0:
            return 0.0
        link = self._link
        begin_s = max(now_s, self._sends_until_s[sender], self._receives_until_s[receiver])
        end_s = begin_s + tokens * link.token_bytes / link.bytes_per_s
        self._sends_until_s[sender] = self._receives_until_s[receiver] = end_s
        return end_s + link.latency_s - now_s
