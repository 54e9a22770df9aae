"""The platform as a user has it: started, asked and stopped with the ``weir`` command."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from load_tests.servers.process import bench_environment

_TIMEOUT_S = 300


def run_weir(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``weir`` with these arguments, its state in ``home``, to its end."""
    command = [sys.executable, "-m", "weir.cli.main", *arguments]
    env = bench_environment({"WEIR_HOME": str(home)})
    env.pop("WEIR_CONFIG", None)
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )


@contextlib.contextmanager
def user_platform(home: Path, config: Path) -> Iterator[dict[str, Any]]:
    """A platform with the settings of ``config``; yields what ``weir up --json`` printed. Ends the
    bench where it does not come up."""
    try:
        up = run_weir(home, "up", "--config", str(config), "--json", "--timeout", "280")
        if up.returncode != 0:
            sys.exit(f"the platform does not come up:\n{up.stderr}")
        yield json.loads(up.stdout)
    finally:
        run_weir(home, "down", "--now")
