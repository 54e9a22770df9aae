"""Whether KV blocks outside the accelerator are worth keeping: computing a prefix or loading it."""

from __future__ import annotations

from dataclasses import dataclass

from weir.planner.serving import Engine

#: PCIe 5 x16 and NVMe drives at what copies of blocks reach of them; bytes per second.
HOST_BYTES_PER_S = 25e9
DISK_BYTES_PER_S = 5e9


@dataclass(frozen=True, slots=True)
class TierCosts:
    """Seconds for a prefix of ``tokens``."""

    tokens: int
    compute_s: float
    from_host_s: float
    from_disk_s: float


def tier_costs(engine: Engine, tokens: int) -> TierCosts:
    """What a prefix costs when it is not in the accelerator's memory."""
    moved = engine.roofline.card.request_bytes(tokens)
    devices = engine.roofline.layout.devices
    return TierCosts(
        tokens,
        engine.roofline.prefill_s(tokens, 0, engine.batched_tokens),
        moved / (HOST_BYTES_PER_S * devices),
        moved / DISK_BYTES_PER_S,
    )
