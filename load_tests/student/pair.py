"""What the ratio becomes for a pair of useful size: 8B and 0.6B on one H100, in the simulator's
step timing. Second-hand: rooflines from published figures, measured on nothing here.

The 0.6B model is derived by the same rules as the simulator's own `h100-8b` (calibrations.py):
Qwen3-0.6B (Qwen3 technical report, 2025: 28 layers, 16 query and 8 key-value heads of 128, 0.44e9
parameters without embeddings, 0.6e9 with), H100 SXM (NVIDIA H100 datasheet: 3.35 TB/s, 989 TFLOP/s
bf16 dense), of which 80 % and 500 TFLOP/s are taken to be reached; 1 ms of overhead a step.
"""

from __future__ import annotations

from typing import Any, Final

from load_tests.sim.calibrations import H100_8B
from load_tests.sim.timing import StepTiming

_BANDWIDTH: Final = 0.8 * 3.35e12
_OVERHEAD_S: Final = 1.0e-3

H100_0_6B: Final = StepTiming(
    name="h100-0.6b",
    fixed_s=_OVERHEAD_S + 2 * 0.6e9 / _BANDWIDTH,
    prefill_token_s=2 * 0.44e9 / 500e12,
    prefill_attended_s=4 * 16 * 128 * 28 / 400e12,
    decode_sequence_s=20e-6,
    decode_context_s=2 * 8 * 128 * 28 * 2 / _BANDWIDTH,
    source=__doc__ or "",
)


def pair_rows(context: int = 1024) -> list[dict[str, Any]]:
    """Decode step and prefill of both, and their ratio, by batch size."""
    rows = []
    for batch in (1, 8, 32, 128):
        large = H100_8B.step_s(0, 0, batch, batch * context)
        small = H100_0_6B.step_s(0, 0, batch, batch * context)
        rows.append(
            {
                "table": "8B and 0.6B on one H100, simulated",
                "system": f"decode, batch {batch}",
                "large_ms": 1000 * large,
                "small_ms": 1000 * small,
                "ratio": large / small,
                "ratio_without_overhead": (large - _OVERHEAD_S) / (small - _OVERHEAD_S),
            }
        )
    large, small = (t.prefill_s(2048, 0, 8192) for t in (H100_8B, H100_0_6B))
    rows.append(
        {
            "table": "8B and 0.6B on one H100, simulated",
            "system": "prefill, 2048 tokens",
            "large_ms": 1000 * large,
            "small_ms": 1000 * small,
            "ratio": large / small,
            "ratio_without_overhead": (large - _OVERHEAD_S) / (small - _OVERHEAD_S),
        }
    )
    return rows


def expected_tokens(acceptance: float, proposed: int) -> float:
    """Tokens per verifying step when each proposal is accepted with probability `acceptance`.

    Leviathan et al. 2023, equation 1.
    """
    if acceptance >= 1:
        return proposed + 1.0
    return float((1 - acceptance ** (proposed + 1)) / (1 - acceptance))


def speculative_rows(acceptance: float, proposed: int, context: int = 1024) -> list[dict[str, Any]]:
    """Expected speed-up for the pair at an acceptance, by batch size."""
    rows = []
    for batch in (1, 2, 4, 8, 16, 32, 128):
        plain = H100_8B.step_s(0, 0, batch, batch * context)
        drafting = proposed * H100_0_6B.step_s(0, 0, batch, batch * context)
        # Checking `proposed` more tokens per sequence is prefill work on top of a decode step.
        checking = plain + batch * proposed * H100_8B.prefill_token_s
        speedup = expected_tokens(acceptance, proposed) * plain / (drafting + checking)
        rows.append(
            {
                "table": "speculation, 8B and 0.6B on one H100, simulated",
                "system": f"batch {batch}",
                "acceptance": acceptance,
                "proposed": proposed,
                "speedup": speedup,
            }
        )
    return rows
