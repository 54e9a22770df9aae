"""What tests of several rooms share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client  # noqa: F401 - before Feast, whose import turns on shared metrics
import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine
from xdist.scheduler import LoadScopeScheduling

from weir.database import migrate, open_database
from weir.testing.postgresql import PostgresqlServer, postgresql_folder, running_postgresql

# A busy machine must not fail a test: no deadlines. In CI the same examples each time.
settings.register_profile(
    "weir",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("weir")

ROOT = Path(__file__).resolve().parents[1]
_SHARE_NOTHING = ("contract",)


@pytest.fixture(scope="session", autouse=True)
def _own_metrics() -> None:
    # What the import of Feast left behind must not reach the processes that tests start.
    for name in ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR"):
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """What a test leaves in the environment would configure the platforms of later tests."""
    before = _own_variables()
    yield
    after = _own_variables()
    for name in after.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    assert after == before, "the test has changed WEIR_* variables and left them so"


@pytest.fixture(autouse=True)
def _own_logging() -> None:
    """A test that starts a part of weir in its own process configures the logs as that part does:
    no later test of the worker could read them. Each begins with what an import leaves."""
    logger = logging.getLogger("weir")
    logger.handlers[:], logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


def _own_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("WEIR_")}


class Together(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types for it
    """Which tests one worker of ``pytest -n`` runs: all that need the running platform, and all of
    a file, which may share an engine. Those of the contract share nothing.

    Groups by mark (``--dist loadgroup``) do nothing: pytest-xdist 3.8 writes them into an attribute
    that pytest 9.2 no longer reads."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        room = file.removeprefix("tests/").partition("/")[0]
        if room == "e2e":
            return room
        return nodeid if room in _SHARE_NOTHING else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """How the tests are shared out."""
    return Together(config, log)


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


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A real PostgreSQL; tests that need it are skipped where it is not installed."""
    programs = postgresql_folder()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with running_postgresql(programs) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_at(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh, empty database: a test runs once for each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'weir.db'}"
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return server.new_database()


@pytest.fixture
def database(database_at: str) -> Iterator[Engine]:
    """A fresh database with weir's tables, of each kind."""
    engine = open_database(database_at)
    migrate(engine)
    yield engine
    engine.dispose()
