"""What is known of a request while it runs, and the headers that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deployments.gateway.accounts import Tab
from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.legs import Attempt
from deployments.gateway.request import Request
from deployments.gateway.tracing.context import RESPONSE_HEADER, Trace
from weir.errors import WeirError

if TYPE_CHECKING:
    from deployments.gateway.ending import Ending

SPILL_HEADER = b"x-weir-spill"
CASCADE_HEADER = b"x-weir-cascade"
_Pairs = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Record:
    """Filled step by step; everything told at the end follows from it. ``tenant`` and ``model``
    stay empty for a request that came to its end before they were known. ``id`` and ``serial`` are
    the request's; ``key`` is the key's that it came with. ``tab``: its account, where its tenant
    has quotas or a budget. ``trace``: where requests are traced. ``client_left``: before its answer
    was complete. ``ending``: how it ended, once it has. Times are on the loop's clock;
    ``validated_s`` and ``enriched_s`` are 0 until then."""

    endpoint: str
    arrival_s: float
    id: str = ""
    serial: str = ""
    tenant: str = ""
    model: str = ""
    request: Request | None = None
    unknown: Unknown | None = None
    attempts: list[Attempt] = field(default_factory=list)
    error: WeirError | None = None
    client_left: bool = False
    key: str = ""
    tab: Tab | None = None
    trace: Trace | None = None
    validated_s: float = 0.0
    enriched_s: float = 0.0
    ending: Ending | None = None

    @property
    def exemplar(self) -> dict[str, str] | None:
        """What leads from a metric to the request's trace, if that is kept."""
        trace = self.trace
        return {"trace_id": trace.trace_id} if trace is not None and trace.kept else None

    def early_headers(self) -> _Pairs:
        """The headers of a stream that is opened before it is known who answers."""
        pairs: _Pairs = []
        if self.request is not None and self.request.enrichment is not None:
            pairs += self.request.enrichment.headers()
        if self.unknown is not None:
            pairs += self.unknown.headers()
        if self.tab is not None:
            family = self.request.dialect.family if self.request is not None else ""
            pairs += self.tab.headers(family)
        if self.trace is not None:
            pairs.append((RESPONSE_HEADER, self.trace.response.encode()))
        return pairs

    def headers(self) -> _Pairs:
        """The response's headers, as its attempts are when it begins."""
        pairs = self.early_headers()
        if self.attempts and self.error is None:
            pairs += _answered_by(self.attempts)
        return pairs


def _answered_by(attempts: list[Attempt]) -> _Pairs:
    last = attempts[-1]
    answered = last.adapter.id if last.adapter is not None else last.step.model
    pairs: _Pairs = [(b"x-weir-model-answered", answered.encode())]
    if last.choices and last.choices[0].legs:
        leg = last.choices[0].legs[-1]
        pairs.append((b"x-weir-replica", leg.replica_id.encode()))
        if leg.kept is not None:
            pairs.append((b"x-weir-prefill-replica", leg.prefill_id.encode()))
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
