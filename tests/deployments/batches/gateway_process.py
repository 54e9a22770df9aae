"""A gateway with a replica as a process of its own: ``python gateway_process.py FOLDER`` prints its
URL and runs until it is killed."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from deployments.testing.counting import CountingGenerator
from deployments.testing.words import word_encoder
from deployments.testing.world import http_world
from tests.deployments.batches.worlds import settings_of
from weir.settings.batches import BatchesSettings, FilesSettings


async def main(folder: Path) -> None:
    batches = BatchesSettings(chunk_lines=4, lease_s=1.0, max_lines_in_flight=16)
    settings = settings_of(batches, FilesSettings())
    with tempfile.TemporaryDirectory() as words:
        encoder = word_encoder(Path(words))
        encoders = {model.name: encoder for model in settings.models}
        async with http_world(settings, encoders, files=folder) as world:
            await world.add_replica("r", CountingGenerator(0.01), max_model_len=512)
            print(world.url, flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
