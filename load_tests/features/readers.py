"""One read path, driven alone in a process of its own: ``python -m load_tests.features.readers``.

At a given rate (arrivals are Poisson, each request a task: one that is late does not hold up the
next), then as fast as it goes with 32 look-ups in flight. Prints one JSON object. The event loop
is uvloop, as in a Serve replica.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import uvloop

from features.keys import entity_key
from load_tests.features.data import REFS, TENANT, features_section, plan
from load_tests.report import percentile

RATE_PER_S = 500.0
IN_FLIGHT = 32
Read = Callable[[str], Awaitable[Any]]
Open = Callable[[argparse.Namespace, AsyncExitStack], Awaitable[Read]]


async def open_weir(options: argparse.Namespace, stack: AsyncExitStack) -> Read:
    """The look-up alone: from an entity to its typed, checked values."""
    from features.online import CacheSettings, FeatureReader, StoreAddress, StoreLink
    from features.online.format import hash_key

    link = StoreLink(StoreAddress.parse(options.redis))
    link.start()
    stack.push_async_callback(link.close)
    await link.wait_until_up()
    cache = CacheSettings() if options.system == "weir-cached" else CacheSettings(0)
    reader, service = FeatureReader(link, cache), plan()

    async def read(customer_id: str) -> None:
        row = await reader.begin(service, hash_key(entity_key(TENANT, customer_id)), 1.0).row()
        assert row.outcome == "hit", row

    return read


async def open_enricher(options: argparse.Namespace, stack: AsyncExitStack) -> Read:
    """All that the gateway does for a request: rule, entity, look-up, template, placement."""
    from deployments.gateway.bodies.requests import ChatBody, ChatMessage
    from deployments.gateway.enrichment import build_enricher
    from weir.metrics import GatewayMetrics
    from weir.settings import load_settings
    from weir.tenancy import Tenant

    section = features_section(options.redis, budget_ms=1000.0)
    settings = load_settings("stub", overlay={"features": section})
    enricher = build_enricher(settings, GatewayMetrics(), {})
    enricher.start()
    stack.push_async_callback(enricher.close)
    await enricher.connected()
    messages = [
        ChatMessage(role="system", content="You are the support desk."),
        ChatMessage(role="user", content="Where is my order?"),
    ]
    body, tenant = ChatBody(model="stub", messages=messages), Tenant(TENANT)

    async def read(customer_id: str) -> None:
        headers = {b"x-weir-entity": customer_id}
        enrichment = await enricher.begin(tenant, body, headers.get).finish()
        assert enrichment.enriched, enrichment

    return read


async def open_feast(options: argparse.Namespace, stack: AsyncExitStack) -> Read:
    """Feast's own async client, as its documentation uses it."""
    from features.desk_data import DataFolder
    from features.repo import FeatureRepository

    store = FeatureRepository(options.redis, DataFolder(options.folder)).store
    await store.initialize()
    stack.push_async_callback(store.close)

    async def read(customer_id: str) -> None:
        answer = await store.get_online_features_async(
            REFS, [{"entity": entity_key(TENANT, customer_id)}]
        )
        assert answer.to_dict()["tier"][0] is not None

    return read


async def open_server(options: argparse.Namespace, stack: AsyncExitStack) -> Read:
    """Feast's Python feature server over keep-alive HTTP."""
    connector = aiohttp.TCPConnector(limit=0)
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))

    async def read(customer_id: str) -> None:
        body = {"features": REFS, "entities": {"entity": [entity_key(TENANT, customer_id)]}}
        async with session.post(f"{options.server}/get-online-features", json=body) as response:
            assert response.status == 200, await response.text()
            await response.json()

    return read


SYSTEMS: dict[str, Open] = {
    "weir-enricher": open_enricher,
    "weir": open_weir,
    "weir-cached": open_weir,
    "feast-async": open_feast,
    "feast-server": open_server,
}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both phases."""
    rng = random.Random(options.seed)
    ids = [f"c{index:06d}" for index in range(options.customers)]
    weights = [1.0 / (rank + 1) for rank in range(len(ids))]  # Zipf, exponent 1
    async with AsyncExitStack() as stack:
        read = await SYSTEMS[options.system](options, stack)
        for customer_id in ids[:200]:
            await read(customer_id)
        gc.collect()
        at_rate = await paced(read, rng.choices(ids, weights, k=20_000), rng, options.seconds)
        at_most = await saturated(read, rng.choices(ids, weights, k=20_000), options.seconds)
    memory = psutil.Process().memory_info().rss / 2**20
    return {**at_rate, **at_most, "client_rss_mib": memory}


async def paced(
    read: Read, ids: Sequence[str], rng: random.Random, seconds: float
) -> dict[str, Any]:
    """Latencies at ``RATE_PER_S``."""
    samples: list[float] = []

    async def one(customer_id: str) -> None:
        began_s = time.perf_counter()
        await read(customer_id)
        samples.append((time.perf_counter() - began_s) * 1e3)

    tasks: set[asyncio.Task[None]] = set()
    start_s = due_s = time.perf_counter()
    cpu_s = time.process_time()
    for customer_id in ids:
        due_s += rng.expovariate(RATE_PER_S)
        if due_s - start_s > seconds:
            break
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        task = asyncio.create_task(one(customer_id))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    took_s = time.perf_counter() - start_s
    return {
        "offered_per_s": RATE_PER_S,
        "done_per_s": len(samples) / took_s,
        "p50_ms": percentile(samples, 50),
        "p99_ms": percentile(samples, 99),
        "max_ms": max(samples),
        "cpu_us_per_look_up": (time.process_time() - cpu_s) / len(samples) * 1e6,
    }


async def saturated(read: Read, ids: Sequence[str], seconds: float) -> dict[str, Any]:
    """Throughput with ``IN_FLIGHT`` callers that ask again at once."""
    done = 0
    samples: list[float] = []
    end_s = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        nonlocal done
        at = number * 617
        while time.perf_counter() < end_s:
            began_s = time.perf_counter()
            await read(ids[at % len(ids)])
            samples.append((time.perf_counter() - began_s) * 1e3)
            at += 1
            done += 1

    begin_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller(number) for number in range(IN_FLIGHT)))
    took_s = time.perf_counter() - begin_s
    return {
        "most_per_s": done / took_s,
        "p99_at_most_ms": percentile(samples, 99),
        "client_cpu_at_most": (time.process_time() - cpu_s) / took_s,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", choices=SYSTEMS, required=True)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--server")
    parser.add_argument("--customers", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    print(json.dumps(uvloop.run(measure(parser.parse_args(argv)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
