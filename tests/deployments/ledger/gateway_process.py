"""A gateway before a replica of another process, as a process of its own: ``python
gateway_process.py ADDRESS FOLDER`` prints its URL and runs until it is killed. What it books is in
an outbox below the folder."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deployments.testing.words import word_encoder
from deployments.testing.world import KEY, http_world
from router.types import ReplicaInfo
from weir.ledger import UsageRecord
from weir.ledger.outbox import Outbox
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.tenancy import hash_key


class OutboxLedger:
    """Keeps what is noted, and ships nothing."""

    def __init__(self, folder: Path) -> None:
        self._outbox = Outbox.create(folder, f"gateway-{os.getpid()}")

    def note(self, records: Sequence[UsageRecord]) -> None:
        """See :class:`deployments.gateway.booking.Ledger`."""
        self._outbox.append(records)


async def main(address: str, folder: Path) -> None:
    settings = Settings(
        models=(ModelSettings(name="m", source="x"),),
        tenants=(TenantSettings(id="t", key_sha256=(hash_key(KEY),)),),
    )
    with tempfile.TemporaryDirectory() as words:
        encoders = {"m": word_encoder(Path(words))}
        async with http_world(settings, encoders, ledger=OutboxLedger(folder)) as world:
            info = ReplicaInfo("r", address=address, max_model_len=512, block_size=16,
                               kv_blocks_total=1000, tasks=frozenset({"generate"}))  # fmt: skip
            world.model.router.set_replicas((info,))
            await world.model.fleet.connection("r")
            print(world.url, flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
