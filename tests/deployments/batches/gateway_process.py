"""A gateway with a replica as a process of its own: ``python gateway_process.py FOLDER REDIS_PORT``
prints its URL and runs until it is killed. The tenant ``one`` has quotas, counted in that Redis."""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from prometheus_client import CollectorRegistry

from deployments.gateway.accounts import RedisStore
from deployments.gateway.accounts.building import now_ms, redis_account
from deployments.testing.counting import CountingGenerator
from deployments.testing.words import word_encoder
from deployments.testing.world import http_world
from features.online import StoreLink, parse_address
from features.online.address import StoreAddress
from tests.deployments.batches.worlds import settings_of
from weir.metrics import GatewayMetrics
from weir.settings import Settings
from weir.settings.batches import BatchesSettings, FilesSettings
from weir.settings.money import AccountsSettings

#: Never reached.
QUOTAS = {"requests_per_day": 10**6, "output_tokens_per_day": 10**9, "concurrent_requests": 10**4}
ACCOUNTS = {"timeout_ms": 5_000, "lease_s": 2.0}


def counted_settings() -> Settings:
    """Quotas for the tenant ``one``."""
    batches = BatchesSettings(chunk_lines=4, lease_s=1.0, max_lines_in_flight=16)
    tree = settings_of(batches, FilesSettings()).model_dump(mode="json")
    tree["tenants"][0]["quotas"] = QUOTAS
    return Settings.model_validate(tree)


async def main(folder: Path, redis_port: int) -> None:
    settings = counted_settings()
    address = parse_address(f"redis://127.0.0.1:{redis_port}/0")
    assert isinstance(address, StoreAddress)
    link, told = StoreLink(address), AccountsSettings.model_validate(ACCOUNTS)
    metrics = GatewayMetrics(CollectorRegistry())
    store = RedisStore(link, told, secrets.token_hex(8), now_ms, metrics)
    store.start()
    await link.wait_until_up()
    with tempfile.TemporaryDirectory() as words:
        encoder = word_encoder(Path(words))
        encoders = {model.name: encoder for model in settings.models}
        opened = http_world(settings, encoders, files=folder, account=redis_account(store))
        async with opened as world:
            await world.add_replica("r", CountingGenerator(0.01), max_model_len=512)
            print(world.url, flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
