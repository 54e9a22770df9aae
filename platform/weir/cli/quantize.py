"""``weir quantize``: runs the quantization in a process of its own, where torch may be imported."""

from __future__ import annotations

from collections.abc import Sequence

from weir.cli.distill import run_tool

MODULE = "fallback.quantize.command"


def quantize(arguments: Sequence[str]) -> int:
    """Exit code of the quantization."""
    return run_tool(MODULE, arguments)
