"""What tests of several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import prometheus_client  # noqa: F401 - before Feast, whose import turns on shared metrics
import pytest
from hypothesis import HealthCheck, settings

# A busy machine must not fail a test: no deadlines. In CI the same examples each time.
settings.register_profile(
    "weir",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("weir")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _own_metrics() -> None:
    # What the import of Feast left behind must not reach the processes that tests start.
    for name in ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def package_env() -> dict[str, str]:
    """Environment for a subprocess that imports our packages, installed or not."""
    env = dict(os.environ)
    env["PYTHONPATH"] = os.pathsep.join((str(ROOT / "platform"), str(ROOT)))
    return env
