"""A module of weir's that a command runs in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def run_python(
    module: str, arguments: Sequence[str], paths: Sequence[Path], cwd: Path | None = None
) -> int:
    """``python -m module arguments`` in ``cwd`` (None: where the caller is), with ``paths`` first
    among those that modules are imported from. Returns its exit code (128 + n after signal n).
    SIGTERM is passed on, so that whoever ends the command ends what it runs."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    given = env.get("PYTHONPATH", "").split(os.pathsep)
    env["PYTHONPATH"] = os.pathsep.join(path for path in [*map(str, paths), *given] if path)
    child = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=cwd, env=env)
    before = signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number))
    try:
        while True:
            try:
                code = child.wait()
            except KeyboardInterrupt:
                # The terminal sent it to the child as well; it decides how to end.
                continue
            return code if code >= 0 else 128 - code
    finally:
        signal.signal(signal.SIGTERM, before)
