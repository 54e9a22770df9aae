"""What an accelerator has beside its peaks (:mod:`weir.cards.peaks`): memory, formats, links.

``fp8`` and ``fp4`` are how many times faster the matrix units are with those types than with
bfloat16, from the same data sheets; where there are no units for a type, weights are widened
and it is 1. ``link_bytes_per_s`` is what one device can send to the others
of its node (NVLink per direction; PCIe where there is none).
"""

from __future__ import annotations

from dataclasses import dataclass

from weir.cards.peaks import device_peaks
from weir.errors import ConfigError

_GIB = 2**30
_GIGA = 1e9


@dataclass(frozen=True, slots=True)
class Accelerator:
    """``flops_per_s``: dense, in bfloat16. ``per_node``: devices that share fast links.
    ``usd_per_hour``: of one device on demand; an example to be replaced by the reader's own."""

    name: str
    memory_bytes: float
    flops_per_s: float
    bytes_per_s: float
    link_bytes_per_s: float
    fp8: float = 1.0
    fp4: float = 1.0
    per_node: int = 8
    usd_per_hour: float = 0.0
    source: str = ""


# memory (GB as sold), link GB/s, fp8 factor, fp4 factor, devices a node, example USD per hour.
# The prices are round figures of the magnitude that clouds listed on demand in 2025. They are
# examples: cost per token is proportional to them, and --usd-per-hour replaces them.
_TABLE: dict[str, tuple[float, float, float, float, int, float]] = {
    "B200": (180, 900, 2, 4, 8, 6.0),
    "H200": (141, 450, 2, 1, 8, 3.8),
    "H100": (80, 450, 2, 1, 8, 3.0),
    "H100 PCIe": (80, 64, 2, 1, 8, 2.5),
    "A100-80G": (80, 300, 1, 1, 8, 1.8),
    "A100": (40, 300, 1, 1, 8, 1.3),
    "L40S": (48, 32, 2, 1, 8, 1.2),
    "L4": (24, 32, 2, 1, 8, 0.7),
    "A10": (24, 32, 1, 1, 8, 0.6),
    "T4": (16, 16, 1, 1, 8, 0.35),
    "MI300X": (192, 448, 2, 1, 8, 3.0),
}


def accelerator_names() -> tuple[str, ...]:
    """Those of the table, in its order."""
    return tuple(_TABLE)


def find_accelerator(name: str, usd_per_hour: float | None = None) -> Accelerator:
    """The accelerator of that name; ``usd_per_hour`` replaces the example price.

    Raises:
        ConfigError: no such accelerator is known.
    """
    known = {row.lower(): row for row in _TABLE}
    row = known.get(name.lower().removeprefix("nvidia ").removeprefix("amd "))
    peaks = device_peaks(row) if row else None
    if row is None or peaks is None:
        raise ConfigError(
            f"no accelerator {name!r}; known: {', '.join(_TABLE)}", param="accelerator"
        )
    memory, link, fp8, fp4, per_node, usd = _TABLE[row]
    return Accelerator(
        row,
        memory * _GIGA,
        peaks.flops_per_s,
        peaks.bytes_per_s,
        link * _GIGA,
        fp8,
        fp4,
        per_node,
        usd if usd_per_hour is None else usd_per_hour,
        peaks.source,
    )
