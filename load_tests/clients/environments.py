"""The environments that the clients live in: a virtual environment or a folder of npm packages
each, made once in a folder of the caller's choosing. None of it touches the platform's own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from load_tests.servers.process import REPOSITORY, Unavailable

PINS = Path(__file__).parent / "environments"
DEFAULT_HOME = REPOSITORY / ".cache" / "clients"
INSTALL_LIMIT_S = 1800


def ready_environment(name: str, home: Path) -> Path:
    """The folder of environment ``name`` below ``home``, made if it is not there or its pins have
    changed.

    Raises:
        Unavailable: what it needs is not on this machine, or the installer failed.
    """
    pins = pins_of(name)
    folder = home / name
    stamp = folder / ".pins"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text("ascii") == digest:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    print(f"installing {name} into {folder}", file=sys.stderr, flush=True)
    if pins.suffix == ".txt":
        _install_python(pins, folder)
    else:
        _install_node(pins, folder)
    stamp.write_text(digest, "ascii")
    return folder


def pins_of(name: str) -> Path:
    """The file with the environment's versions: a requirements file, or a package.json."""
    text = PINS / f"{name}.txt"
    return text if text.is_file() else PINS / name / "package.json"


def versions(name: str, folder: Path, packages: tuple[str, ...]) -> str:
    """``package version`` of each of ``packages`` as they are installed, comma-separated."""
    if pins_of(name).suffix == ".txt":
        code = "import importlib.metadata as m, sys; print(*[m.version(p) for p in sys.argv[1:]])"
        command = [str(folder / "bin" / "python"), "-c", code, *packages]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    else:
        files = [folder / "node_modules" / package / "package.json" for package in packages]
        told = [json.loads(file.read_text("utf-8"))["version"] for file in files]
    return ", ".join(
        f"{package} {version}" for package, version in zip(packages, told, strict=True)
    )


def _install_python(pins: Path, folder: Path) -> None:
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=False)
    sources = [sys.executable, str(REPOSITORY / "requirements" / "uv_pip.py"), "sources"]
    asked = subprocess.run(sources, capture_output=True, text=True, check=True)
    words = asked.stdout.splitlines()[-1].split() if asked.stdout.strip() else []
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "install", "--python", str(folder / "bin" / "python")]
    _install([*command, "--compile-bytecode", "-r", str(pins), *words], folder)


def _install_node(pins: Path, folder: Path) -> None:
    if shutil.which("npm") is None:
        raise Unavailable("npm is not installed")
    shutil.copy(pins, folder / "package.json")
    quiet = ["--no-package-lock", "--no-audit", "--no-fund"]
    _install(["npm", "install", *quiet], folder)


def _install(command: list[str], folder: Path) -> None:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        try:
            ended = subprocess.run(
                command,
                cwd=folder,
                env=dict(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=INSTALL_LIMIT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"{command[0]}: {error}") from error
        if ended.returncode:
            log.seek(0)
            lines = [line.strip() for line in log if line.strip()]
            raise Unavailable(f"{Path(command[0]).name} failed: {lines[-1] if lines else ''}")
