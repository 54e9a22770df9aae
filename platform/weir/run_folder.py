"""Where everything that one platform starts keeps its sockets and temporary files.

One folder for each state folder, so that stopping a platform removes all of it, and the next
start removes what a killed one left behind. A Unix socket's path has at most 107 bytes, and Ray
adds 64 of them; where the state folder's own path is too long for that, the folder lies in the
system's temporary folder, under a name derived from the state folder's path.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

_MAX_BYTES = 40


def run_folder(state: Path) -> Path:
    """The folder of the platform whose state is in ``state``. Not created here."""
    path = state.absolute() / "run"
    if len(os.fsencode(path)) <= _MAX_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"weir-{os.getuid()}-{name}"


def make_run_folder(state: Path) -> Path:
    """An empty run folder, readable by its owner only.

    Raises:
        OSError: it cannot be made, or one of that name cannot be removed.
    """
    folder = run_folder(state)
    if folder.is_symlink() or folder.exists():
        remove_run_folder(state)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def remove_run_folder(state: Path) -> None:
    """Remove the run folder; nothing of the platform may be alive any more."""
    remove_folder(run_folder(state))


def remove_folder(folder: Path) -> None:
    """Remove a run folder that is known: to the platform in it, the temporary folder is another. A
    folder that belongs to another user is left alone: the temporary folder's sticky bit refuses its
    removal."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
