"""A Redis Cluster, and a master behind a Sentinel: Feast writes, weir reads, nodes come and go."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import feast
import feast.types as ft
import pytest
from redis.crc import key_slot

from features.online import (
    CacheSettings,
    ClusterAddress,
    ClusterLink,
    FeatureReader,
    FeatureSpec,
    Patience,
    SentinelAddress,
    ServicePlan,
    ServiceSpec,
    StoreLink,
    ViewSpec,
    parse_address,
)
from features.online.format import hash_key
from features.repo import store_config
from features.repo.repository import _quiet
from features.testing import until
from tests.conformance.redis_nodes import Nodes, client, make_cluster, move_slot, nodes, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")

PLAN = ServicePlan(ServiceSpec("s", (ViewSpec("v", (FeatureSpec("name"),)),)))
PATIENCE = Patience(probe_timeout_s=5.0, backoff_max_s=0.2, failures=1000)
NAMES = [f"acme/{number}" for number in range(60)]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with nodes(tmp_path_factory.mktemp("nodes")) as made:
        yield made


def write(url: str, folder: Path) -> None:
    """A row for each of the names, by Feast's own store."""
    store = feast.FeatureStore(config=store_config(url, folder))
    entity = feast.Entity(name="e", join_keys=["entity"], value_type=feast.ValueType.STRING)
    batch = feast.FileSource(name="f", path=str(folder / "v"), timestamp_field="event_timestamp")
    view = feast.FeatureView(
        name="v",
        entities=[entity],
        schema=[feast.Field(name="name", dtype=ft.String)],
        source=feast.PushSource(name="p", batch_source=batch),
    )
    at = [dt.datetime(2026, 3, 1, tzinfo=dt.UTC)] * len(NAMES)
    with _quiet():
        store.apply([entity, view])
        store.write_to_online_store(
            "v", inputs={"entity": NAMES, "name": NAMES, "event_timestamp": at}
        )


async def read(link: Any, name: str) -> tuple[str, Any]:
    lookup = FeatureReader(link, CacheSettings(0)).begin(PLAN, hash_key(name), 30.0)
    row = await lookup.row()
    return row.outcome, row.values["name"]


async def test_a_cluster(started: Nodes, tmp_path: Path) -> None:
    ports = make_cluster(started, 3)
    url = f"redis+cluster://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"
    write(url, tmp_path)
    held = [client(port).dbsize() for port in ports]
    assert sum(held) == len(NAMES)
    assert min(held) > 0
    address = parse_address(url)
    assert isinstance(address, ClusterAddress)
    states: list[str] = []
    link = ClusterLink(address, PATIENCE, on_change=states.append)
    assert await read(link, NAMES[0]) == ("down", None)
    link.start()
    await link.wait_until_up()
    assert [await read(link, name) for name in NAMES] == [("hit", name) for name in NAMES]
    assert (await read(link, "acme/nobody"))[0] == "missing"
    await _a_slot_moves(link, ports)
    started.stop(ports[2])
    outcomes = {(await read(link, name))[0] for name in NAMES}
    while "down" not in outcomes or link.state != "down":
        outcomes = {(await read(link, name))[0] for name in NAMES}
        await asyncio.sleep(0.01)
    assert outcomes <= {"hit", "down"}
    assert states[-1] == "down"
    await link.close()


async def _a_slot_moves(link: ClusterLink, ports: list[int]) -> None:
    """The first read after a move is answered by the node that the old one names."""
    name = next(n for n in NAMES if key_slot(hash_key(n)) < 16_384 // 3)
    key, slot = hash_key(name), key_slot(hash_key(name))
    with client(ports[0]) as source, client(ports[1]) as target:
        mine = source.execute_command("CLUSTER", "MYID")
        theirs = target.execute_command("CLUSTER", "MYID")
        target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", mine)
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", theirs)
        source.migrate("127.0.0.1", ports[1], [key], 0, 5000)
    assert await read(link, name) == ("hit", name), "sent on by ASK"
    move_slot(ports, slot, ports[0], ports[1])
    assert await read(link, name) == ("hit", name), "sent on by MOVED"


async def test_a_master_behind_a_sentinel(started: Nodes, tmp_path: Path) -> None:
    master = started.start()
    replica = started.start("--replicaof", "127.0.0.1", str(master))
    sentinel = started.start(
        config=f"sentinel monitor shop 127.0.0.1 {master} 1\n"
        "sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 2000"
    )
    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel}/shop/0"
    write(url.replace("127.0.0.1:1,", ""), tmp_path)
    with client(replica) as held:
        wait_for(lambda: held.dbsize() == len(NAMES))
    with client(sentinel) as asked:
        wait_for(lambda: asked.sentinel_slaves("shop"))
    address = parse_address(url)
    assert isinstance(address, SentinelAddress)
    link = StoreLink(address, PATIENCE)
    link.start()
    await link.wait_until_up()
    assert await read(link, NAMES[7]) == ("hit", NAMES[7])
    started.stop(master)
    async with asyncio.timeout(30):
        while await read(link, NAMES[7]) != ("hit", NAMES[7]):  # noqa: ASYNC110 - a failover
            await asyncio.sleep(0.05)
    with client(replica) as held:
        assert held.info("replication")["role"] == "master"
    await link.close()


async def test_a_master_that_nobody_knows_is_a_store_that_is_down(started: Nodes) -> None:
    sentinel = started.start(config="")
    address = parse_address(f"valkey+sentinel://127.0.0.1:{sentinel}/nobody")
    assert isinstance(address, SentinelAddress)
    states: list[str] = []
    link = StoreLink(address, PATIENCE, on_change=states.append)
    link.start()
    async with asyncio.timeout(30):
        await until(lambda: states)
    assert states == ["down"]
    assert await read(link, NAMES[0]) == ("down", None)
    await link.close()


async def test_a_node_of_a_cluster_alone_is_no_store(started: Nodes) -> None:
    """redis:// at a cluster: what it does not hold is down, never missing."""
    port = make_cluster(started, 2)[0]
    address = parse_address(f"redis://127.0.0.1:{port}/0")
    assert not isinstance(address, ClusterAddress)
    link = StoreLink(address, PATIENCE)
    link.start()
    outcomes = set()
    for name in NAMES[:12]:
        await link.wait_until_up()
        outcomes.add((await read(link, name))[0])
    assert outcomes == {"missing", "down"}
    await link.close()
