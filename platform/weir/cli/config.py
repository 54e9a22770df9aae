"""``weir config check`` and ``weir config schema``: by a process that may import all rooms, because
the rooms know which policies there are and whether a model's files can be used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from weir.cli.exits import CommandError, ExitCode
from weir.settings import Problem, SettingsError

MODULE = "deployments.checking"


def check(file: Path, profile: str, *, static: bool = False) -> tuple[str, ...]:
    """The names of the models of a settings file that a platform can be started with. ``static``:
    on a machine that has the files and secrets which the settings name.

    Raises:
        SettingsError: everything that is wrong with it.
        CommandError: it could not be checked.
    """
    # After "--" a file may be called like an option.
    options = ["--static"] if static else []
    told = json.loads(_run([*options, "--profile", profile, "--", str(file)]))
    problems = tuple(Problem(path, message) for path, message in told["problems"])
    if problems:
        raise SettingsError(told["origin"], problems)
    return tuple(told["models"])


def schema() -> str:
    """The JSON schema of a settings file, as JSON text.

    Raises:
        CommandError: it could not be made.
    """
    return _run(["--schema"])


def _run(arguments: Sequence[str]) -> str:
    # -P: the folder that the user happens to stand in must not shadow any module.
    command = [sys.executable, "-P", "-m", MODULE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise CommandError(f"{MODULE} failed: {last}", ExitCode.FAILURE, hint=done.stderr.strip())
    return done.stdout
