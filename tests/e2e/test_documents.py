"""Every command of the documents, as it stands there, against the running platform.

Two things are put in, which ``weir up`` prints for a reader to put in: the URL and the key. Blocks
that are not run say why in their own first line (tests/docs/blocks.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT, RUN, Block, blocks, documents, expected

pytestmark = pytest.mark.e2e
_LIMIT_S = 120.0
_TRIES = 3
"""A busy machine may miss a look-up's budget of 5 ms now and then, and print something else."""


def _run(block: Block, platform: Any, folder: Path) -> str:
    """What a block prints. A pipe that fails fails the block."""
    text = block.text.replace("http://127.0.0.1:8000", platform.url).replace("weir_…", platform.key)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {
        "WEIR_HOME": str(platform.home),
        "PYTHONPATH": os.pathsep.join((str(ROOT / "platform"), str(ROOT))),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"])),
    }
    command = (
        [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
    )
    result = subprocess.run(
        [*command, text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert result.returncode == 0, f"{block.name}\n{result.stdout}\n{result.stderr}"
    return result.stdout.replace("\r\n", "\n")


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_command_works_as_it_stands(platform: Any, document: Path, tmp_path: Path) -> None:
    for block in blocks(document):
        if block.file is not None:
            (tmp_path / block.file).write_text(block.text)
        if block.language not in RUN or block.no_run is not None:
            continue
        said = _run(block, platform, tmp_path)
        if block.expects is None:
            continue
        for _ in range(_TRIES - 1):
            if not expected(block).search(said):
                said = _run(block, platform, tmp_path)
        assert expected(block).search(said), f"{block.name} printed\n{said}"
