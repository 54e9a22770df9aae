"""Run uv with the package sources that pip is configured for, which uv itself does not read.

    python requirements/uv_pip.py install          the lock, vllm's name, this checkout (editable)
    python requirements/uv_pip.py image [NAMES...] what an image needs: no tools, this checkout as a
                                                   wheel, and further packages
    python requirements/uv_pip.py lock [ARGS...]   write requirements/lock.txt anew
    python requirements/uv_pip.py sources          show the arguments that uv is given

torch's CPU wheel comes from pip's own sources where they have it, otherwise from PyTorch's index.
Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# pip merges its sections in this order; a later one wins.
SECTIONS = ("global", "install", ":env:")


def pip_options(listing: str) -> dict[str, str]:
    """pip's effective options for ``pip install`` from the text of ``pip config list``."""
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listing.splitlines():
        match = re.fullmatch(r"(.+?)\.([a-z-]+)=(.*)", line.strip())
        if match and match[1] in found:
            found[match[1]][match[2]] = str(ast.literal_eval(match[3]))
    merged: dict[str, str] = {}
    for section in SECTIONS:
        merged |= found[section]
    return merged


def uv_arguments(options: Mapping[str, str], pytorch_index: bool) -> list[str]:
    """uv's source arguments for pip's options; ``pytorch_index`` adds PyTorch's CPU index."""
    indexes = options.get("extra-index-url", "").split()
    if pytorch_index:
        indexes.append(PYTORCH_CPU_INDEX)
    arguments = []
    for link in options.get("find-links", "").split():
        arguments += ["--find-links", link]
    for index in indexes:
        arguments += ["--index", index]
    if indexes:
        # pip's own rule. The lock's hashes decide which file is acceptable, not its origin.
        arguments += ["--index-strategy", "unsafe-best-match"]
    if "index-url" in options:
        arguments += ["--default-index", options["index-url"]]
    if options.get("no-index", "").lower() in {"1", "true", "yes", "on", "y", "t"}:
        arguments.append("--no-index")
    for host in options.get("trusted-host", "").split():
        arguments += ["--allow-insecure-host", host]
    return arguments


def uv_environment(options: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str]:
    """``base`` with pip's certificate, proxy and timeout; what is set already stays."""
    env = {key: value for key, value in base.items() if key != "PYTHONDONTWRITEBYTECODE"}
    wanted = {
        "UV_PYTHON_DOWNLOADS": "never",
        # Seconds for one file; a busy machine must not fail the installation.
        "UV_COMPILE_BYTECODE_TIMEOUT": "600",
        "SSL_CERT_FILE": options.get("cert"),
        "SSL_CLIENT_CERT": options.get("client-cert"),
        "HTTP_PROXY": options.get("proxy"),
        "HTTPS_PROXY": options.get("proxy"),
        "UV_HTTP_TIMEOUT": options.get("default-timeout") or options.get("timeout"),
    }
    for key, value in wanted.items():
        if value:
            env.setdefault(key, value)
    return env


class Uv:
    """uv in this interpreter's environment."""

    def __init__(self) -> None:
        listing = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        self.options = pip_options(listing)
        self._env = uv_environment(self.options, os.environ)
        self.sources = uv_arguments(self.options, pytorch_index=False)
        if not self._knows_torch():
            print(f"weir: pip's own sources have no CPU build of torch; adding {PYTORCH_CPU_INDEX}")
            self.sources = uv_arguments(self.options, pytorch_index=True)

    def pip(self, *arguments: str, quiet: bool = False) -> int:
        """``uv pip ARGUMENTS``; the exit code."""
        command = [str(Path(sys.executable).with_name("uv")), "pip", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self._env, capture_output=quiet).returncode

    def install(self) -> int:
        """The lock with its hashes, bytecode compiled; then, without dependencies, the name under
        which vLLM looks for itself (requirements/vllm) and this checkout."""
        into = ("install", "--python", sys.executable, "--compile-bytecode")
        lock = ("--require-hashes", "-r", "requirements/lock.txt", *self._override())
        ours = ("--no-deps", "--no-build-isolation", "./requirements/vllm", "--editable", ".")
        return self.pip(*into, *lock, *self.sources) or self.pip(*into, *ours)

    def image(self, *further: str) -> int:
        """weir as a wheel, with what it needs on CPUs in the versions of the lock."""
        into = ("install", "--python", sys.executable, "--compile-bytecode")
        pinned = ("--constraint", "requirements/lock.txt", *self._override())
        built = (".[cpu]", "hatchling", "nixl", *further)
        name = ("--no-deps", "--no-build-isolation", "./requirements/vllm")
        return self.pip(*into, *pinned, *built, *self.sources) or self.pip(*into, *name)

    def lock(self, *arguments: str) -> int:
        """Resolve dev.in (which includes lock.in) into lock.txt: hashes, no index address."""
        form = ("--generate-hashes", "--no-emit-index-url", "--no-annotate", "--no-header")
        where = ("--python", sys.executable, "-o", "requirements/lock.txt")
        what = ("requirements/dev.in", *self._override())
        return self.pip("compile", *what, *form, *where, *self.sources, *arguments, quiet=True)

    @staticmethod
    def _override() -> tuple[str, str]:
        return "--override", "requirements/overrides.txt"

    def _knows_torch(self) -> bool:
        pin = re.search(r"^torch==\S+", (HERE / "lock.in").read_text(), re.MULTILINE)
        if pin is None:
            raise SystemExit("weir: requirements/lock.in does not pin torch")
        probe = ("install", "--dry-run", "--no-deps", "--python", sys.executable, pin[0])
        return self.pip(*probe, *self.sources, quiet=True) == 0


def main(arguments: list[str]) -> int:
    """The command named by the first argument; the exit code."""
    match arguments:
        case ["install"]:
            return Uv().install()
        case ["image", *rest]:
            return Uv().image(*rest)
        case ["lock", *rest]:
            return Uv().lock(*rest)
        case ["sources"]:
            print(" ".join(Uv().sources))
            return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
