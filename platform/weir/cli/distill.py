"""``weir distill``: runs the distillation in a process of its own, where torch may be imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import weir
from weir.cli.child import run_python
from weir.cli.exits import CommandError, ExitCode

MODULE = "fallback.distill.command"


def run_tool(module: str, arguments: Sequence[str]) -> int:
    """``python -m module arguments`` where the caller is, so that paths mean what they say.

    Returns its exit code (128 + n after signal n).

    Raises:
        CommandError: torch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise CommandError(
            "this command needs torch, which comes with an engine",
            ExitCode.USAGE,
            hint="pip install 'weir[cpu]' or 'weir[gpu]'",
        )
    source = Path(weir.__file__).resolve().parents[1]
    return run_python(module, arguments, (source, source.parent))


def distill(arguments: Sequence[str]) -> int:
    """Exit code of the distillation."""
    return run_tool(MODULE, arguments)
