"""One gateway's account, asked without a gateway around it: a process of its own, one JSON line."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from prometheus_client import CollectorRegistry

from deployments.gateway.accounts import Account, Most
from deployments.gateway.accounts.building import now_ms, redis_store
from features.online import StoreLink
from features.online.connection import encode
from load_tests.report import percentile
from weir.cost import Used
from weir.metrics import GatewayMetrics
from weir.settings import Settings
from weir.tenancy import Budget, Key, Quotas, Tenant

_BUDGET = Budget(Decimal(1_000_000))
_USUAL = Quotas(10**9, 10**12, 10**12, concurrent_requests=10**6)
_EVERY = Quotas(10**9, 10**12, 10**12, 10**9, 10**12, 10**12, 10**6)
#: No bound is ever reached. The first: four bounds and a budget; the second: every bound that there
#: is, of the tenant, of its key and of the model, and a budget.
CALLERS = {
    "usual": (Tenant("bench", quotas=_USUAL, budget=_BUDGET), Key("k", "bench", "")),
    "every": (
        Tenant("bench", quotas=_EVERY, model_quotas={"m": _EVERY}, budget=_BUDGET),
        Key("k", "bench", "", quotas=_EVERY),
    ),
}
_MOST = Most("m", Used(500, 0, 500), 1_000_000)
_USED = Used(500, 100, 200)


async def one_request(account: Account, caller: str) -> None:
    """Reserve an attempt, and settle it."""
    tab = account.open(*CALLERS[caller])
    assert tab is not None
    charge = await tab.reserve(_MOST)
    tab.headers("openai")
    tab.close([(charge, _USED, 500_000)], counts=True)


async def measure(
    url: str, seconds: float, streams: int, caller: str, pause_s: float = 0.002
) -> dict[str, Any]:
    """One request after the other, with pauses; or ``streams`` of them without any."""
    settings = Settings.model_validate(
        {"models": [{"name": "m", "source": "x"}], "accounts": {"url": url, "timeout_ms": 5000}}
    )
    store = redis_store(settings, {}, GatewayMetrics(CollectorRegistry()))
    store.start()
    link = store.link
    assert isinstance(link, StoreLink)
    await link.wait_until_up()
    account = Account(store, now_ms)
    told: dict[str, Any] = {}
    if streams:
        told["requests_per_s"] = await _most(account, seconds, streams, caller)
    else:
        asked, pinged = await _alone(account, link, seconds, caller, pause_s)
        for name, each in (("reserve_settle", asked), ("ping", pinged)):
            for at in (50, 99):
                found_s = percentile(each, at)
                assert found_s is not None
                told[f"{name}_p{at}_us"] = found_s * 1e6
    await store.aclose()
    return told


async def _alone(
    account: Account, link: StoreLink, seconds: float, caller: str, pause_s: float
) -> tuple[list[float], list[float]]:
    loop = asyncio.get_running_loop()
    asked: list[float] = []
    pinged: list[float] = []
    for _ in range(50):
        await one_request(account, caller)
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        began_s = time.perf_counter()
        await one_request(account, caller)
        asked.append(time.perf_counter() - began_s)
        await asyncio.sleep(pause_s)
        answer: asyncio.Future[Any] = loop.create_future()
        began_s = time.perf_counter()
        link.send(encode(b"PING"), answer.set_result)
        await answer
        pinged.append(time.perf_counter() - began_s)
        await asyncio.sleep(pause_s)
    return asked, pinged


async def _most(account: Account, seconds: float, streams: int, caller: str) -> float:
    count = 0
    end_s = time.perf_counter() + seconds

    async def ask() -> None:
        nonlocal count
        while time.perf_counter() < end_s:
            await one_request(account, caller)
            count += 1

    await asyncio.gather(*(ask() for _ in range(streams)))
    return count / seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Print one JSON object; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--streams", type=int, default=0)
    parser.add_argument("--pause-s", type=float, default=0.002)
    parser.add_argument("--caller", choices=sorted(CALLERS), default="usual")
    options = parser.parse_args(argv)
    try:
        import uvloop
    except ImportError:
        run: Any = asyncio.run
    else:
        run = uvloop.run
    asked = (options.redis, options.seconds, options.streams, options.caller, options.pause_s)
    print(json.dumps(run(measure(*asked))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
