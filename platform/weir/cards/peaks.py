"""What a device could do at most: dense floating point operations and bytes of memory per second.

The table has the vendors' figures for bfloat16 (float16 where a chip has no bfloat16) without
sparsity, from the data sheets named beside each row. Names are matched as parts of what the driver
or Ray calls the device, longest first.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peaks:
    """``flops_per_s`` and ``bytes_per_s`` of one device. ``source``: a data sheet, or
    ``measured``."""

    flops_per_s: float
    bytes_per_s: float
    source: str


_TERA = 1e12

_DEVICES: dict[str, Peaks] = {
    "B200": Peaks(2250 * _TERA, 8.0 * _TERA, "NVIDIA HGX B200 data sheet"),
    "H200": Peaks(989 * _TERA, 4.8 * _TERA, "NVIDIA H200 data sheet"),
    "H100 NVL": Peaks(835 * _TERA, 3.9 * _TERA, "NVIDIA H100 data sheet"),
    "H100 PCIe": Peaks(756 * _TERA, 2.0 * _TERA, "NVIDIA H100 PCIe product brief"),
    "H100": Peaks(989 * _TERA, 3.35 * _TERA, "NVIDIA H100 data sheet (SXM)"),
    "A100-SXM4-80GB": Peaks(312 * _TERA, 2.039 * _TERA, "NVIDIA A100 data sheet"),
    "A100-80G": Peaks(312 * _TERA, 2.039 * _TERA, "NVIDIA A100 data sheet"),
    "A100 80GB PCIe": Peaks(312 * _TERA, 1.935 * _TERA, "NVIDIA A100 data sheet"),
    "A100": Peaks(312 * _TERA, 1.555 * _TERA, "NVIDIA A100 data sheet (40 GB)"),
    "L40S": Peaks(362 * _TERA, 0.864 * _TERA, "NVIDIA L40S data sheet"),
    "L4": Peaks(121 * _TERA, 0.3 * _TERA, "NVIDIA L4 data sheet"),
    "A10": Peaks(125 * _TERA, 0.6 * _TERA, "NVIDIA A10 data sheet"),
    "T4": Peaks(65 * _TERA, 0.32 * _TERA, "NVIDIA T4 data sheet (float16)"),
    "V100": Peaks(125 * _TERA, 0.9 * _TERA, "NVIDIA V100 data sheet (float16)"),
    "MI300X": Peaks(1307 * _TERA, 5.3 * _TERA, "AMD Instinct MI300X data sheet"),
}
# Other chips whose names begin like one of the table.
_OTHERS = ("A10G", "L40", "A1000", "T400", "T4G", "GH200", "GB200")


def device_peaks(name: str) -> Peaks | None:
    """The peaks of a device by its name (``NVIDIA H100 80GB HBM3``); None for an unknown one."""
    heard = name.lower().replace("_", "-")
    for known in sorted(_DEVICES, key=len, reverse=True):
        if known.lower() in heard:
            others = (other.lower() for other in _OTHERS if len(other) > len(known))
            return None if any(other in heard for other in others) else _DEVICES[known]
    return None
