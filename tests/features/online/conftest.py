"""A fake store, a link to it, a reader without a cache."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from features.online import CacheSettings, FeatureReader, StoreAddress, StoreLink
from features.testing import EAGER, FakeRedis


@pytest.fixture
async def redis() -> AsyncIterator[FakeRedis]:
    server = FakeRedis()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def link(redis: FakeRedis) -> AsyncIterator[StoreLink]:
    link = StoreLink(StoreAddress.parse(redis.url), EAGER)
    link.start()
    await link.wait_until_up()
    yield link
    await link.close()


@pytest.fixture
def reader(link: StoreLink) -> FeatureReader:
    """Without a cache."""
    return FeatureReader(link, CacheSettings(0, 0, 0))
