"""Step timings that engines are simulated with. ``laptop-cpu`` is fitted by
``python -m load_tests.calibrate`` on this project's own machine class; the H100 ones are
second-hand: derived from what others published, and checked against nothing here."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from load_tests.sim.timing import StepTiming

LAPTOP_FILE = Path(__file__).with_name("laptop-cpu.json")

H100_8B = StepTiming(
    name="h100-8b",
    fixed_s=7.0e-3,
    prefill_token_s=28e-6,
    prefill_attended_s=1.3e-9,
    decode_sequence_s=20e-6,
    decode_context_s=4.9e-8,
    source=(
        "Llama-3.1-8B bf16 on one H100 SXM, second-hand. Prefill: the matrix multiplications "
        "that Vidur (MLSys'24, microsoft/vidur, data/profiling/compute/h100, Llama-2-70b TP1, "
        "4096 tokens: 10.9 ms a layer, 656 TFLOP/s) measured, at 500 TFLOP/s for the narrower "
        "layers. Attention: 4 x 4096 x 32 FLOP per pair at 400 TFLOP/s (FlashAttention-3 paper: "
        "FA2 350-400, FA3 up to 740). Decode: 16 GB of weights and 128 KiB of KV per token at "
        "80 % of 3.35 TB/s, 1 ms of overhead; Dynamo's mocker (lib/mocker, perf_model.rs) has "
        "5.74 ms + 54 ms x share of 1.05 M tokens (5.1e-8 s a token) and 15 us a prefill token "
        "+ 16.5 ms"
    ),
)

H100_70B_TP4 = StepTiming(
    name="h100-70b-tp4",
    fixed_s=17e-3,
    prefill_token_s=64e-6,
    prefill_attended_s=1.64e-9,
    decode_sequence_s=20e-6,
    decode_context_s=3.1e-8,
    source=(
        "Llama-70B bf16 on four H100 SXM, second-hand. Vidur's profile of Llama-2-70b on H100 at "
        "TP4: 0.18 ms a layer at 1 token, 0.19 at 64; from TP1 and TP8 at 4096 tokens 2.9 ms a "
        "layer; two all-reduces a layer added (10 us each at 1 token, 0.3 ms at 4096). Attention "
        "and KV reads as for h100-8b, 320 KiB of KV per token over four GPUs"
    ),
)

DYNAMO_MOCKER = StepTiming(
    name="dynamo-mocker",
    fixed_s=5.74e-3,
    prefill_token_s=23.2e-6,
    prefill_attended_s=0.0,
    decode_sequence_s=0.0,
    decode_context_s=5.15e-8,
    source=(
        "the default step times of Dynamo's mocker (ai-dynamo 1.3.1, lib/mocker, perf_model.rs), "
        "made linear for 1.05 M tokens of KV and steps of 2048 tokens: 5.74 ms + 54 ms x share of "
        "KV in use; 16.5 ms a prefill step (spread over 2048 tokens) + 15.2 us a token; the "
        "quadratic terms left out"
    ),
)

_BUILT_IN = {timing.name: timing for timing in (H100_8B, H100_70B_TP4, DYNAMO_MOCKER)}


def timing_names() -> tuple[str, ...]:
    """What ``load_timing`` knows."""
    return (*_BUILT_IN, *(("laptop-cpu",) if LAPTOP_FILE.exists() else ()))


def load_timing(name: str) -> StepTiming:
    """A calibration by name, or from a JSON file written by ``load_tests.calibrate``."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    path = LAPTOP_FILE if name == "laptop-cpu" else Path(name)
    if not path.exists():
        raise ValueError(f"unknown calibration {name!r}; known: {', '.join(timing_names())}")
    return StepTiming(**json.loads(path.read_text("utf-8"))["timing"])


def timing_form(timing: StepTiming) -> dict[str, float | str]:
    """The JSON form that ``load_timing`` reads back."""
    return asdict(timing)
