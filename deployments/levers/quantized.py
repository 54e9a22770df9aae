"""Levers of the weights: the model in 8 or 4 bits, as ``weir quantize`` writes it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from deployments.levers.engine import Bench, Engine, Timed, share_equal
from deployments.levers.registry import Outcome, lever


@lever("weights-w8a8", "a model of 'weir quantize --scheme w8a8'")
def w8a8(bench: Bench) -> Outcome:
    """8-bit weights and activations."""
    return _packed(bench, "w8a8")


@lever("weights-w4a16", "a model of 'weir quantize --scheme w4a16'")
def w4a16(bench: Bench) -> Outcome:
    """4-bit weights."""
    return _packed(bench, "w4a16")


def _packed(bench: Bench, scheme: str) -> Outcome:
    from fallback.quantize.command import quantize
    from fallback.quantize.scheme import Scheme
    from weir.cards.weights import files_bytes

    def ask(engine: Engine) -> Timed:
        return engine.answer(bench.prompts(engine, 8), 48)

    with tempfile.TemporaryDirectory(prefix="weir-levers-") as held:
        folder = Path(held) / scheme
        quantize(bench.model, folder, Scheme(scheme, 32), None)  # type: ignore[arg-type]
        plain_dtype: dict[str, Any] = {"dtype": "bfloat16"}
        plain, small = bench.compare(ask, plain_dtype, {"model": str(folder), "dtype": "bfloat16"})
        saved = (files_bytes(Path(bench.model)) or 0) / (files_bytes(folder) or 1)
    note = f"files {saved:.2f} times smaller; embeddings stay as they are"
    gain = plain.seconds / small.seconds
    return Outcome(True, share_equal(plain, small), gain, "time of 8 streams", note)
