"""Make the environment that holds the peers: ``python -m load_tests.servers.install_peers``.

They need one of their own, because their pins contradict the platform's. Packages come from where
the platform's own installer takes them.

It is of Python 3.12 or 3.13 where there is one: LiteLLM's proxy sets context variables so often
that its process ends under 3.11 after some hundred requests, by a fault of that interpreter (a
segmentation fault in ``hamt_node_bitmap_clone`` when the garbage collector runs in the middle of
``ContextVar.set``; python/cpython#148891, which also names 3.10 and 3.11). Its own image has 3.13.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from load_tests.servers.gateways import PEERS_PYTHON
from load_tests.servers.process import REPOSITORY

PEERS = ("litellm[proxy]==1.109.1", "sglang-router==0.3.2")
PYTHONS = ("python3.13", "python3.12")
# LiteLLM asks for releases of these that are only days older than itself, which mirrors may not
# have yet. Any release will do: one holds root certificates, the other database migrations.
OVERRIDES = ("certifi", "litellm-proxy-extras", "soundfile<0.14")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code is the installer's."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = PEERS_PYTHON.parent.parent
    parser.add_argument("--into", type=Path, default=default, help="default: %(default)s")
    parser.add_argument("--python", help="default: the first that runs of " + ", ".join(PYTHONS))
    options = parser.parse_args(argv)
    into: Path = options.into
    python = options.python or found_python()
    if python is None:
        python = sys.executable
        print(f"no {' or '.join(PYTHONS)}: LiteLLM may crash under {python}", file=sys.stderr)
    # An environment that is there already may be of another Python.
    anew = ["--clear"] if (into / "pyvenv.cfg").is_file() else []
    made = subprocess.run([python, "-m", "venv", *anew, "--without-pip", str(into)])
    if made.returncode:
        return made.returncode
    installer = [sys.executable, str(REPOSITORY / "requirements" / "uv_pip.py"), "sources"]
    asked = subprocess.run(installer, capture_output=True, text=True, check=True)
    sources = asked.stdout.splitlines()[-1].split() if asked.stdout.strip() else []
    uv = str(Path(sys.executable).with_name("uv"))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as overrides:
        overrides.write("\n".join(OVERRIDES))
        overrides.flush()
        command = [uv, "pip", "install", "--python", str(into / "bin" / "python")]
        command += ["--compile-bytecode", *PEERS, "--override", overrides.name, *sources]
        return subprocess.run(command).returncode


def found_python() -> str | None:
    """The first of :data:`PYTHONS` that runs: of the search path, or of pyenv's versions, whose
    names on the search path end with an error where they are not the chosen ones."""
    for name in PYTHONS:
        for folder in _folders(name.removeprefix("python")):
            path = folder / name
            tried = [str(path), "-c", ""]
            if path.is_file() and not subprocess.run(tried, capture_output=True).returncode:
                return str(path)
    return None


def _folders(version: str) -> Iterator[Path]:
    yield from (Path(part) for part in os.environ.get("PATH", "").split(os.pathsep) if part)
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(root.glob(f"versions/{version}.*/bin"), reverse=True)


if __name__ == "__main__":
    sys.exit(main())
