"""From a gateway's outbox through a real Redis into the database: nothing lost, nothing twice,
whoever is killed on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from sqlalchemy import Engine, func, select

from deployments.redis_server import RedisServer
from tests.weir.ledger.records import usage_record
from weir.database import migrate, open_database, reading
from weir.ledger import ReplicaTime, UsageRecord
from weir.ledger.outbox import Outbox, OutboxLimits
from weir.ledger.shipping import COMMITTED, STREAM, Pace, Shipper
from weir.ledger.tables import replica_hours, usage_records
from weir.ledger.usage import usage
from weir.ledger.writer import REJECTED, Writer, run_writer

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")
ROOT = Path(__file__).resolve().parents[2]
PACE = Pace(period_s=0.02, batch_bytes=4096, adopt_period_s=0.1, stalled_s=0.3, timeout_s=1.0)
SMALL = OutboxLimits(segment_bytes=20_000)


class _Watch:
    def __init__(self) -> None:
        self.up: list[bool] = []

    def shipped(self, outbox: Outbox, up: bool) -> None:
        self.up.append(up)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = RedisServer(tmp_path / "redis", port, tmp_path / "redis.log")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path / 'weir.db'}")
    migrate(engine)
    yield engine
    engine.dispose()


@contextmanager
def _writing(server: RedisServer, engine: Engine) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=run_writer, args=(server.url, engine, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def _legs(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.scalar(select(func.count()).select_from(usage_records)) or 0)


async def _until(condition: Callable[[], bool], limit_s: float = 90.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.02)


def _shipper(redis: AsyncRedis, outbox: Outbox, root: Path, watch: _Watch | None = None) -> Shipper:
    clock = asyncio.get_running_loop().time
    return Shipper(redis, outbox, root, watch or _Watch(), clock, PACE, SMALL)


async def _everything(server: RedisServer, root: Path, scenario: Callable[..., object]) -> None:
    """Run a scenario with an outbox that is shipped."""
    redis = AsyncRedis.from_url(server.url, socket_timeout=1.0)
    outbox = Outbox.create(root, "own", SMALL)
    shipper = _shipper(redis, outbox, root)
    task = asyncio.create_task(shipper.run())
    try:
        await scenario(outbox)  # type: ignore[misc]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        shipper.close()
        await redis.aclose()


async def test_records_arrive_and_the_outbox_is_emptied(
    server: RedisServer, engine: Engine, tmp_path: Path
) -> None:
    async def scenario(outbox: Outbox) -> None:
        with _writing(server, engine):
            for number in range(500):
                outbox.append([usage_record(number)])
            time_up = {"from_ms": 0, "until_ms": 1000}
            outbox.append([ReplicaTime(replica="a", model="m", pool="", **time_up)])
            await _until(lambda: _legs(engine) == 500)
            await _until(lambda: outbox.size_bytes < SMALL.segment_bytes)
        (row,) = usage(engine)
        assert (row.requests, row.output_tokens) == (500, 5000)
        with reading(engine) as connection:
            assert connection.scalar(select(func.count()).select_from(replica_hours)) == 1

    await _everything(server, tmp_path / "ledger", scenario)
    with Redis.from_url(server.url) as client:
        assert client.xlen(STREAM) == 0


async def test_redis_is_killed_on_the_way(
    server: RedisServer, engine: Engine, tmp_path: Path
) -> None:
    async def scenario(outbox: Outbox) -> None:
        with _writing(server, engine):
            for number in range(600):
                outbox.append([usage_record(number)])
                if number in (200, 400):
                    await _until(lambda: _legs(engine) > 50)
                    assert server.pid is not None
                    os.kill(server.pid, signal.SIGKILL)
                    await asyncio.to_thread(server.wait)
                if number in (260, 460):
                    await asyncio.to_thread(server.start)
                await asyncio.sleep(0.001)
            await _until(lambda: _legs(engine) == 600)
        (row,) = usage(engine)
        assert row.requests == 600

    await _everything(server, tmp_path / "ledger", scenario)


async def test_what_redis_loses_is_sent_again(
    server: RedisServer, engine: Engine, tmp_path: Path
) -> None:
    async def scenario(outbox: Outbox) -> None:
        with Redis.from_url(server.url) as client:
            for number in range(300):
                outbox.append([usage_record(number)])
            await _until(lambda: outbox.read_to == 300 and client.xlen(STREAM) > 0)
            client.flushall()
            with _writing(server, engine):
                await _until(lambda: _legs(engine) == 300)
                await _until(lambda: int(client.hget(COMMITTED, "own") or 0) == 300)

    await _everything(server, tmp_path / "ledger", scenario)


async def test_nothing_is_trimmed_before_the_database_has_it(
    server: RedisServer, engine: Engine, tmp_path: Path
) -> None:
    """With Redis alone, records would be as safe as Redis is."""

    async def scenario(outbox: Outbox) -> None:
        for number in range(300):
            outbox.append([usage_record(number)])
        size = outbox.size_bytes
        await _until(lambda: outbox.read_to == 300)
        await asyncio.sleep(0.2)
        assert outbox.size_bytes == size
        with _writing(server, engine):
            await _until(lambda: outbox.size_bytes < size)

    await _everything(server, tmp_path / "ledger", scenario)


_GATEWAY = """
import asyncio, os, sys
from pathlib import Path
from redis.asyncio import Redis
from tests.deployments.test_ledger_shipping import _shipper, SMALL
from tests.weir.ledger.records import usage_record
from weir.ledger.outbox import Outbox

async def main():
    root, url, begin = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    outbox = Outbox.create(root, f"gateway-{begin}", SMALL)
    shipper = _shipper(Redis.from_url(url), outbox, root)
    task = asyncio.create_task(shipper.run())
    for number in range(begin, begin + 1000):
        outbox.append([usage_record(number)])
        sys.stdout.write(f"{number}\\n")  # the client has its answer
        sys.stdout.flush()
        await asyncio.sleep(0.0005)
    await task

asyncio.run(main())
"""


def _gateway(server: RedisServer, root: Path, begin: int) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}"}
    command = [sys.executable, "-c", _GATEWAY, str(root), server.url, str(begin)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


async def test_gateways_are_killed_in_the_middle(
    server: RedisServer, engine: Engine, tmp_path: Path
) -> None:
    """What a client was answered is in the database, once: another gateway takes over."""
    root = tmp_path / "ledger"
    gateways = [_gateway(server, root, begin) for begin in (0, 10_000)]
    answered: list[int] = []
    for count, gateway in enumerate(gateways):
        assert gateway.stdout is not None
        for _ in range(300 + 200 * count):
            answered.append(int(gateway.stdout.readline()))
        gateway.kill()
        answered += [int(line) for line in gateway.stdout.read().split("\n")[:-1]]
        gateway.wait(10)
        gateway.stdout.close()

    async def scenario(outbox: Outbox) -> None:
        outbox.append([usage_record(99_999)])
        with _writing(server, engine):
            await _until(lambda: _legs(engine) > len(answered))
            await _until(lambda: sorted(p.name for p in root.iterdir()) == ["own"])

    await _everything(server, root, scenario)
    with reading(engine) as connection:
        found = {
            int(r.removeprefix("r")) for r in connection.scalars(select(usage_records.c.request))
        }
    assert found >= {*answered, 99_999}
    # A record may be there whose client was not answered any more: one for each gateway.
    assert len(found) <= len(answered) + 1 + len(gateways)
    (row,) = usage(engine)
    assert row.requests == len(found)


async def test_a_writer_takes_over_what_another_did_not_finish(
    server: RedisServer, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weir.ledger.writer._IDLE_MS", 0)

    async def scenario(outbox: Outbox) -> None:
        with Redis.from_url(server.url) as client:
            outbox.append([usage_record(1)])
            await _until(lambda: client.xlen(STREAM) == 1)
            dead = Writer(client, engine, dict)
            dead._join()
            assert len(dead._next(100)) == 1
            assert client.xpending(STREAM, "writer")["pending"] == 1
            alive = Writer(client, engine, dict)
            assert await asyncio.to_thread(alive.write, 100) == 1
            assert client.xpending(STREAM, "writer")["pending"] == 0

    await _everything(server, tmp_path / "ledger", scenario)
    assert _legs(engine) == 1


async def test_what_was_read_and_not_written_is_read_again(
    server: RedisServer, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database does not answer once, after the records were read."""
    import weir.ledger.writer as module
    from weir.errors import DatabaseAwayError

    store, calls = module.store, [0]

    def fails_once(*args: object) -> dict[str, int]:
        calls[0] += 1
        if calls[0] == 1:
            raise DatabaseAwayError("away")
        return store(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "store", fails_once)

    async def scenario(outbox: Outbox) -> None:
        outbox.append([usage_record(number) for number in range(5)])
        with _writing(server, engine):
            await _until(lambda: _legs(engine) == 5)

    await _everything(server, tmp_path / "ledger", scenario)
    assert calls[0] == 2


async def test_records_of_an_unknown_kind_are_kept_apart(
    server: RedisServer, engine: Engine, tmp_path: Path
) -> None:
    import struct
    import zlib

    import msgspec

    body = msgspec.msgpack.encode(["kind of the future", 1])
    strange = struct.pack("<II", len(body), zlib.crc32(body)) + body
    with Redis.from_url(server.url) as client:
        client.xadd(STREAM, {"o": "new", "s": 0, "n": 1, "b": 0, "f": strange})
        client.xadd(STREAM, {"o": "new", "s": 1, "n": 1, "b": 0, "f": b"damaged"})
        client.xadd(STREAM, {"nothing": 1})
        with _writing(server, engine):
            await _until(lambda: client.xlen(STREAM) == 0)
        assert client.xlen(REJECTED) == 3
        assert client.hget(COMMITTED, "new") == b"1"


async def test_a_clean_stop_leaves_nothing_behind(
    server: RedisServer, engine: Engine, tmp_path: Path
) -> None:
    root = tmp_path / "ledger"
    redis = AsyncRedis.from_url(server.url)
    outbox = Outbox.create(root, "own", SMALL)
    shipper = _shipper(redis, outbox, root)
    outbox.append([usage_record(number) for number in range(20)])
    with _writing(server, engine):
        assert await shipper.flush(10.0)
        shipper.close()
    assert _legs(engine) == 20
    assert list(root.iterdir()) == []
    await redis.aclose()


async def test_while_redis_is_away_the_gateway_knows(server: RedisServer, tmp_path: Path) -> None:
    server.stop()
    redis = AsyncRedis.from_url(server.url, socket_timeout=0.5)
    outbox = Outbox.create(tmp_path / "ledger", "own", SMALL)
    watch = _Watch()
    shipper = _shipper(redis, outbox, tmp_path / "ledger", watch)
    outbox.append([usage_record(1)])
    begin = time.monotonic()
    await shipper.round()
    assert watch.up == [False]
    assert time.monotonic() - begin < 10
    server.start()
    await shipper.round()
    assert watch.up == [False, True]
    batch = outbox.read(1)
    assert batch is None
    assert isinstance(usage_record(1), UsageRecord)
    shipper.close()
    await redis.aclose()
