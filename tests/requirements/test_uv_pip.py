"""The installer hands pip's package sources to uv."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def uv_pip() -> ModuleType:
    spec = importlib.util.spec_from_file_location("uv_pip", ROOT / "requirements" / "uv_pip.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LISTING = """\
:env:.find-links='/wheels /more wheels'
download.index-url='https://ignored.example/simple'
global.extra-index-url='https://a.example/simple https://b.example/simple'
global.find-links='/system'
global.index-url='https://global.example/simple'
install.index-url='https://install.example/simple'
global.no-index='false'
"""


def test_later_sections_win_and_other_commands_do_not_count(uv_pip: ModuleType) -> None:
    options = uv_pip.pip_options(LISTING)
    assert options["find-links"] == "/wheels /more wheels"
    assert options["index-url"] == "https://install.example/simple"


def test_every_source_reaches_uv(uv_pip: ModuleType) -> None:
    arguments = uv_pip.uv_arguments(uv_pip.pip_options(LISTING), pytorch_index=False)
    assert arguments == [
        *("--find-links", "/wheels", "--find-links", "/more", "--find-links", "wheels"),
        *("--index", "https://a.example/simple", "--index", "https://b.example/simple"),
        *("--index-strategy", "unsafe-best-match"),
        *("--default-index", "https://install.example/simple"),
    ]


def test_nothing_configured_adds_nothing(uv_pip: ModuleType) -> None:
    assert uv_pip.uv_arguments({}, pytorch_index=False) == []


def test_pytorch_index_is_searched_like_any_other(uv_pip: ModuleType) -> None:
    arguments = uv_pip.uv_arguments({"no-index": "1"}, pytorch_index=True)
    assert arguments == [
        *("--index", uv_pip.PYTORCH_CPU_INDEX),
        *("--index-strategy", "unsafe-best-match"),
        "--no-index",
    ]


def test_environment_keeps_what_is_set_and_lets_bytecode_be_written(uv_pip: ModuleType) -> None:
    base = {"SSL_CERT_FILE": "/mine.pem", "PYTHONDONTWRITEBYTECODE": "1"}
    env = uv_pip.uv_environment({"cert": "/pip.pem", "proxy": "http://proxy.example:3128"}, base)
    assert env["SSL_CERT_FILE"] == "/mine.pem"
    assert env["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert "PYTHONDONTWRITEBYTECODE" not in env
    assert "UV_HTTP_TIMEOUT" not in env


def test_install_refuses_another_python_and_leaves_nothing(tmp_path: Path) -> None:
    """A PATH on which every Python is a 3.10: a clear error, and no half-made environment."""
    fake = tmp_path / "bin"
    fake.mkdir()
    for name in ("python", "python3", "python3.11"):
        (fake / name).write_text("#!/bin/sh\nexit 1\n")
        (fake / name).chmod(0o755)
    venv = tmp_path / "venv"
    run = subprocess.run(
        [str(ROOT / "requirements" / "install"), str(venv)],
        env={"PATH": f"{fake}{os.pathsep}/usr/bin{os.pathsep}/bin"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "no Python 3.11 found" in run.stderr
    assert not venv.exists()


def test_usage_error_has_its_own_exit_code() -> None:
    script = str(ROOT / "requirements" / "uv_pip.py")
    run = subprocess.run([sys.executable, script, "dance"], capture_output=True, text=True)
    assert run.returncode == 2
    assert "install" in run.stderr
