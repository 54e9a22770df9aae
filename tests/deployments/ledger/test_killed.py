"""A gateway process is killed under its requests: another one's ledger has what the engine has
counted for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from deployments.listener import Listener, ReplicaApp
from deployments.streams import TokenStreams
from deployments.testing.cluster import no_page, until
from deployments.testing.counting import CountingGenerator
from deployments.testing.recording import RecordingLedger
from deployments.testing.world import KEY, TOKEN
from tests.deployments.test_unbooked import left_in
from weir.ledger import Part
from weir.ledger.record import ORPHANED

_GATEWAY = Path(__file__).with_name("gateway_process.py")
_REPOSITORY = _GATEWAY.parents[3]


@asynccontextmanager
async def gateway(address: str, folder: Path) -> AsyncIterator[tuple[str, int]]:
    """A gateway's URL and process id. It is killed at the end."""
    paths = os.pathsep.join([str(_REPOSITORY / "platform"), str(_REPOSITORY)])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(_GATEWAY),
        address,
        str(folder),
        env=os.environ | {"PYTHONPATH": paths},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            url = (await process.stdout.readline()).decode().strip()
        yield url, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def ask(http: aiohttp.ClientSession, url: str, number: int, tokens: int) -> bool:
    """Whether the answer was whole."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": f"hello {number}"}],
        "max_tokens": tokens,
        "stream": number % 2 == 0,
    }
    head = {"authorization": f"Bearer {KEY}"}
    try:
        async with http.post(f"{url}/v1/chat/completions", json=body, headers=head) as response:
            return response.status == 200 and bool(await response.read())
    except aiohttp.ClientError:
        return False


async def test_what_was_under_way_is_in_the_other_gateways_ledger(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    generator = CountingGenerator(0.01)
    streams = TokenStreams(generator)
    replica = Listener(ReplicaApp(no_page, streams, TOKEN), "127.0.0.1")
    await replica.start()
    telling = asyncio.create_task(streams.tell_load_forever())
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        (first, pid), (second, _) = await asyncio.gather(
            stack.enter_async_context(gateway(replica.address, folder)),
            stack.enter_async_context(gateway(replica.address, folder)),
        )
        short = [ask(http, url, number, 5) for number in range(10) for url in (first, second)]
        assert all(await asyncio.gather(*short))
        long = [asyncio.create_task(ask(http, first, number, 400)) for number in range(8)]
        await until(
            lambda: generator.running == 8 and all(s.output_tokens for s in generator.meter.streams)
        )
        os.kill(pid, signal.SIGKILL)
        assert not any(await asyncio.gather(*long))
        await until(lambda: not generator.running)  # the replica has noticed
        await asyncio.sleep(1.0)  # so that the other gateway books it and says so
        (connection,) = streams._connections
        assert not connection.books.handed
        assert not connection.books._streams
    telling.cancel()
    await replica.stop()
    ledger = RecordingLedger()
    ledger.note(left_in(folder))
    assert not ledger.wrong({"r": generator.meter}, ())
    # Of what had ended right before, the replica had not been told that it is booked.
    booked = {record.leg for record in ledger.records if record.part is Part.WHOLE}
    orphans = [
        record
        for record in ledger.records
        if record.part is Part.ORPHAN and record.leg.removesuffix(ORPHANED) not in booked
    ]
    assert len(orphans) == 8
    assert all(record.tenant == "t" and record.output_tokens for record in orphans)
