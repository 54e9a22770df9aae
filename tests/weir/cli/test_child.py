"""A module in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_MODULE = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
pathlib.Path("pid").write_text(str(os.getpid()))
time.sleep(60)
"""
_COMMAND = """
import sys
from pathlib import Path
from weir.cli.child import run_python
sys.exit(run_python("endless", [], [Path.cwd()], Path.cwd()))
"""


def test_who_ends_the_command_ends_what_it_runs(
    tmp_path: Path, package_env: dict[str, str]
) -> None:
    (tmp_path / "endless.py").write_text(_MODULE)
    command = subprocess.Popen([sys.executable, "-c", _COMMAND], cwd=tmp_path, env=package_env)
    told, give_up_s = tmp_path / "pid", time.monotonic() + 60.0
    while not (told.exists() and told.read_text()) and time.monotonic() < give_up_s:
        time.sleep(0.02)
    command.send_signal(signal.SIGTERM)
    assert command.wait(60) == 7, "the module's own way to end"
    assert not os.path.exists(f"/proc/{told.read_text()}")
