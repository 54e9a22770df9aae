"""``weir features``: handed on to a process of its own, which imports Feast and Ray (seconds)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from weir.cli.exits import ExitCode

MODULE = "deployments.feature_commands"


def features(arguments: Sequence[str]) -> int:
    """Run ``weir features ARGUMENTS``; its exit code (128 + n after signal n)."""
    # vLLM and Feast compile thousands of files on import if they may not keep what they compiled.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    child = subprocess.Popen([sys.executable, "-P", "-m", MODULE, *arguments], env=env)
    while True:
        try:
            code = child.wait()
        except KeyboardInterrupt:
            # The terminal sent it to the child as well, which ends in its own time.
            continue
        return ExitCode.INTERRUPTED if code == -2 else code if code >= 0 else 128 - code
