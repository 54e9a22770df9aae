"""Long work beside the event loop: where it runs, and that cancelled calls leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from deployments.gateway.off_loop import OffLoop, OffLoopLimits
from weir.errors import BadRequestError, BodyTooLargeError, OverloadedError, RateLimitError


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def _off_loop(executor: ThreadPoolExecutor, **limits: Any) -> OffLoop:
    return OffLoop(executor, OffLoopLimits(**{"inline_below": 0, "threads": 1, **limits}))


async def _until_empty(off_loop: OffLoop) -> None:
    async with asyncio.timeout(10):
        while off_loop.in_use:  # noqa: ASYNC110 - the count is all there is to see
            await asyncio.sleep(0.001)


async def test_short_work_stays_in_the_loops_thread(executor: ThreadPoolExecutor) -> None:
    off_loop = _off_loop(executor, inline_below=10)
    here = threading.get_ident()
    assert await off_loop.run("t", 9, threading.get_ident) == here
    assert await off_loop.run("t", 10, threading.get_ident) != here
    await _until_empty(off_loop)


async def test_the_loop_goes_on_meanwhile(executor: ThreadPoolExecutor) -> None:
    off_loop = _off_loop(executor)
    go = threading.Event()
    work = asyncio.create_task(off_loop.run("t", 1, lambda: go.wait(10)))
    await asyncio.sleep(0)
    assert not work.done()
    go.set()
    assert await work


async def test_errors_come_through(executor: ThreadPoolExecutor) -> None:
    def refuse() -> None:
        raise BadRequestError("no", param="messages")

    off_loop = _off_loop(executor)
    with pytest.raises(BadRequestError, match="no"):
        await off_loop.run("t", 1, refuse)
    await _until_empty(off_loop)


async def test_a_cancelled_call_keeps_its_place_until_its_thread_is_free(
    executor: ThreadPoolExecutor,
) -> None:
    off_loop = _off_loop(executor)
    go, ran = threading.Event(), []
    running = asyncio.create_task(off_loop.run("t", 1, lambda: go.wait(10)))
    waiting = asyncio.create_task(off_loop.run("t", 1, lambda: ran.append(1)))
    await asyncio.sleep(0.01)
    for task in (running, waiting):
        task.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    await asyncio.sleep(0)
    assert off_loop.in_use == 1
    go.set()
    await _until_empty(off_loop)
    assert ran == []
    assert await off_loop.run("t", 1, lambda: 5) == 5


async def test_places_are_bounded(executor: ThreadPoolExecutor) -> None:
    off_loop = _off_loop(executor, places=1)
    go = threading.Event()
    first = asyncio.create_task(off_loop.run("t", 1, lambda: go.wait(10)))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError) as refused:
        await off_loop.run("t", 1, lambda: None)
    assert refused.value.retry_after_s
    go.set()
    await first


async def test_a_call_is_bounded_in_time(executor: ThreadPoolExecutor) -> None:
    off_loop = _off_loop(executor, limit_s=0.01)
    go = threading.Event()
    with pytest.raises(OverloadedError, match="too long"):
        await off_loop.run("t", 1, lambda: go.wait(10))
    go.set()
    await _until_empty(off_loop)


async def test_tenants_take_turns(executor: ThreadPoolExecutor) -> None:
    off_loop, go, order = _off_loop(executor), threading.Event(), []
    first = asyncio.create_task(off_loop.run("many", 1, lambda: go.wait(10)))
    await asyncio.sleep(0)
    asked = [*(("many", n) for n in range(5)), ("one", 0), ("other", 0)]
    work = [
        asyncio.create_task(off_loop.run(tenant, 1, lambda who=(tenant, n): order.append(who)))
        for tenant, n in asked
    ]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(first, *work)
    assert set(order[:3]) == {("many", 0), ("one", 0), ("other", 0)}
    assert [n for tenant, n in order if tenant == "many"] == [0, 1, 2, 3, 4]
    assert off_loop.in_use == 0


async def test_one_tenant_leaves_a_thread_to_others() -> None:
    with ThreadPoolExecutor(2) as pool:
        off_loop, go = _off_loop(pool, threads=2), threading.Event()
        mine = [asyncio.create_task(off_loop.run("many", 1, lambda: go.wait(10))) for _ in range(9)]
        await asyncio.sleep(0)
        assert await off_loop.run("one", 1, lambda: 5) == 5
        assert not any(task.done() for task in mine)
        go.set()
        assert all(await asyncio.gather(*mine))


async def test_a_tenant_that_asks_for_too_much_is_told_so(executor: ThreadPoolExecutor) -> None:
    off_loop, go = _off_loop(executor, tenant_places=2), threading.Event()
    mine = [asyncio.create_task(off_loop.run("many", 1, lambda: go.wait(10))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimitError):
        await off_loop.run("many", 1, lambda: None)
    other = asyncio.create_task(off_loop.run("one", 1, lambda: 5))
    await asyncio.sleep(0)
    go.set()
    assert await other == 5
    await asyncio.gather(*mine)


async def test_a_call_that_waits_can_be_cancelled(executor: ThreadPoolExecutor) -> None:
    off_loop, go, ran = _off_loop(executor), threading.Event(), []
    first = asyncio.create_task(off_loop.run("a", 1, lambda: go.wait(10)))
    waiting = [asyncio.create_task(off_loop.run("a", 1, lambda n=n: ran.append(n))) for n in (1, 2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    assert off_loop.in_use == 2
    go.set()
    await asyncio.gather(first, waiting[1])
    assert ran == [2]


async def test_what_is_refused_over_and_over_takes_a_twentieth_of_a_thread(
    executor: ThreadPoolExecutor,
) -> None:
    def refuse() -> None:
        time.sleep(0.01)
        raise BadRequestError("no")

    off_loop, loop = _off_loop(executor), asyncio.get_running_loop()
    took = {}
    for tenant, function in (("good", lambda: time.sleep(0.01)), ("bad", refuse)):
        began_s = loop.time()
        for _ in range(6):
            with contextlib.suppress(BadRequestError):
                await off_loop.run(tenant, 1, function)
        took[tenant] = loop.time() - began_s
    assert took["bad"] > 4 * took["good"]  # 16 times, but for a busy machine
    assert off_loop.in_use == 0


async def test_a_large_body_that_is_refused_costs_what_it_took_to_receive(
    executor: ThreadPoolExecutor,
) -> None:
    def refuse() -> None:
        raise BodyTooLargeError("no")

    off_loop, clock = _off_loop(executor), asyncio.get_running_loop().time
    with pytest.raises(BodyTooLargeError):
        await off_loop.run("bad", 2_000_000, refuse)
    began_s = clock()
    await off_loop.run("bad", 1, int)
    assert clock() - began_s > 0.2


async def test_others_go_on_during_a_penance(executor: ThreadPoolExecutor) -> None:
    def refuse() -> None:
        time.sleep(0.001)
        raise BadRequestError("no")

    off_loop = _off_loop(executor, penance=1e6)
    with pytest.raises(BadRequestError):
        await off_loop.run("bad", 1, refuse)
    waiting = asyncio.create_task(off_loop.run("bad", 1, int))
    assert await off_loop.run("good", 1, lambda: 5) == 5
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert off_loop.in_use == 0


async def test_a_penance_ends_although_its_timer_is_early(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As uvloop's are, whose clock counts milliseconds."""

    def refuse() -> None:
        raise BadRequestError("no")

    loop = asyncio.get_running_loop()
    later = loop.call_later
    monkeypatch.setattr(loop, "call_later", lambda _, *args: later(0.0, *args))
    off_loop = _off_loop(executor, penance=1e6)
    for _ in range(3):
        with pytest.raises(BadRequestError):
            await off_loop.run("bad", 1, refuse)
    assert await off_loop.run("bad", 1, lambda: 5) == 5
