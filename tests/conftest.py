"""What tests of several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def package_env() -> dict[str, str]:
    """Environment for a subprocess that imports our packages, installed or not."""
    env = dict(os.environ)
    env["PYTHONPATH"] = os.pathsep.join((str(ROOT / "platform"), str(ROOT)))
    return env
