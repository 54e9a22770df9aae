"""Make the environment that holds the peers: ``python -m load_tests.servers.install_peers``.

They need one of their own, because their pins contradict the platform's. Packages come from where
the platform's own installer takes them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from load_tests.servers.gateways import PEERS_PYTHON
from load_tests.servers.process import REPOSITORY

PEERS = ("litellm[proxy]==1.109.1", "sglang-router==0.3.2")
# LiteLLM asks for releases of these that are only days older than itself, which mirrors may not
# have yet. Any release will do: one holds root certificates, the other database migrations.
OVERRIDES = ("certifi", "litellm-proxy-extras", "soundfile<0.14")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code is the installer's."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = PEERS_PYTHON.parent.parent
    parser.add_argument("--into", type=Path, default=default, help="default: %(default)s")
    into: Path = parser.parse_args(argv).into
    venv.create(into, with_pip=False)
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


if __name__ == "__main__":
    sys.exit(main())
