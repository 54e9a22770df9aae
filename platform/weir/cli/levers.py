"""``weir levers``: handed on to a process of its own, which may import the engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from weir.cli.exits import ExitCode

MODULE = "deployments.levers"


def levers(arguments: Sequence[str]) -> int:
    """Run ``weir levers ARGUMENTS``; its exit code (128 + n after signal n)."""
    child = subprocess.Popen([sys.executable, "-P", "-m", MODULE, *arguments])
    while True:
        try:
            code = child.wait()
        except KeyboardInterrupt:
            continue  # the terminal sent it to the child as well
        return ExitCode.INTERRUPTED if code == -2 else code if code >= 0 else 128 - code
