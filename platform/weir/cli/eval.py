"""``weir eval``: runs the evaluation in a process of its own, where torch may be imported."""

from __future__ import annotations

from collections.abc import Sequence

from weir.cli.distill import run_tool

MODULE = "fallback.evaluation.command"


def evaluate(arguments: Sequence[str]) -> int:
    """Exit code of the evaluation: 0 passed, 1 below the gate, 2 wrong usage."""
    return run_tool(MODULE, arguments)
