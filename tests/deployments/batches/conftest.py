from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import Engine

from deployments.gateway.prompts import PromptEncoder
from tests.deployments.batches.worlds import Gateways
from weir.database import migrate, open_database


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A database with all tables."""
    made = open_database(f"sqlite:///{tmp_path / 'tables.db'}")
    migrate(made)
    return made


@pytest.fixture
async def gateways(encoder: PromptEncoder, tmp_path: Path) -> AsyncIterator[Gateways]:
    async with AsyncExitStack() as stack:
        yield Gateways(stack, encoder, tmp_path / "shared")
