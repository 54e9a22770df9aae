"""``weir distill``: runs the distillation in a process of its own, where torch may be imported."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import weir
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
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    source = Path(weir.__file__).resolve().parents[1]
    paths = [str(source), str(source.parent), *env.get("PYTHONPATH", "").split(os.pathsep)]
    env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    child = subprocess.Popen([sys.executable, "-m", module, *arguments], env=env)
    while True:
        try:
            code = child.wait()
        except KeyboardInterrupt:
            # The terminal sent it to the child as well; it decides how to end.
            continue
        return code if code >= 0 else 128 - code


def distill(arguments: Sequence[str]) -> int:
    """Exit code of the distillation."""
    return run_tool(MODULE, arguments)
