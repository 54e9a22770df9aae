"""What is known of one request from its arrival to its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments.gateway.legs import Attempt
from deployments.gateway.request import Request
from weir.errors import WeirError

SPILL_HEADER = b"x-weir-spill"
CASCADE_HEADER = b"x-weir-cascade"
_Pairs = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Record:
    """Filled step by step; everything told at the end follows from it. ``tenant`` and ``model``
    stay empty for a request that came to its end before they were known. Times are on the loop's
    clock."""

    endpoint: str
    arrival_s: float
    tenant: str = ""
    model: str = ""
    request: Request | None = None
    attempts: list[Attempt] = field(default_factory=list)
    error: WeirError | None = None
    client_left: bool = False

    @property
    def error_code(self) -> str:
        """For metrics: empty for an answer without error."""
        if self.client_left:
            return "client_gone"
        return (self.error.code or self.error.type) if self.error else ""

    def headers(self) -> _Pairs:
        """The response's headers, as its attempts are when it begins."""
        pairs: _Pairs = []
        if self.request is not None:
            pairs.append((b"x-request-id", self.request.id.encode()))
            if self.request.enrichment is not None:
                pairs += self.request.enrichment.headers()
        if self.attempts and self.error is None:
            pairs += _answered_by(self.attempts)
        return pairs


def _answered_by(attempts: list[Attempt]) -> _Pairs:
    last = attempts[-1]
    pairs: _Pairs = [(b"x-weir-model-answered", last.step.model.encode())]
    if last.choices and last.choices[0].legs:
        pairs.append((b"x-weir-replica", last.choices[0].legs[-1].replica_id.encode()))
    doubtful = next((a for a in attempts if a.doubtful), None)
    if doubtful is not None:
        counts = doubtful.counts
        told = (
            f"{doubtful.doubt}; also billed: {doubtful.step.model} "
            f"prompt_tokens={counts.prompt_tokens} output_tokens={counts.output_tokens}"
        )
        pairs += [(SPILL_HEADER, b"cascade-escalated"), (CASCADE_HEADER, told.encode())]
    if last.step.spill is not None:
        pairs = [pair for pair in pairs if pair[0] != SPILL_HEADER]
        pairs.append((SPILL_HEADER, last.step.spill.encode()))
    elif last.step.hold_back is not None:
        pairs += [(SPILL_HEADER, b"cascade-kept"), (CASCADE_HEADER, last.doubt.encode())]
    return pairs
