"""Long work beside the event loop: where it runs, and that cancelled calls leave nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from deployments.gateway.off_loop import OffLoop
from weir.errors import BadRequestError, OverloadedError


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def _until_empty(off_loop: OffLoop) -> None:
    async with asyncio.timeout(10):
        while off_loop.in_use:  # noqa: ASYNC110 - the count is all there is to see
            await asyncio.sleep(0.001)


async def test_short_work_stays_in_the_loops_thread(executor: ThreadPoolExecutor) -> None:
    off_loop = OffLoop(executor, inline_below=10)
    here = threading.get_ident()
    assert await off_loop.run(9, threading.get_ident) == here
    assert await off_loop.run(10, threading.get_ident) != here
    await _until_empty(off_loop)


async def test_the_loop_goes_on_meanwhile(executor: ThreadPoolExecutor) -> None:
    off_loop = OffLoop(executor, inline_below=0)
    go = threading.Event()
    work = asyncio.create_task(off_loop.run(1, lambda: go.wait(10)))
    await asyncio.sleep(0)
    assert not work.done()
    go.set()
    assert await work


async def test_errors_come_through(executor: ThreadPoolExecutor) -> None:
    def refuse() -> None:
        raise BadRequestError("no", param="messages")

    off_loop = OffLoop(executor, inline_below=0)
    with pytest.raises(BadRequestError, match="no"):
        await off_loop.run(1, refuse)
    await _until_empty(off_loop)


async def test_a_cancelled_call_keeps_its_place_until_its_thread_is_free(
    executor: ThreadPoolExecutor,
) -> None:
    off_loop = OffLoop(executor, inline_below=0)
    go, ran = threading.Event(), []
    running = asyncio.create_task(off_loop.run(1, lambda: go.wait(10)))
    waiting = asyncio.create_task(off_loop.run(1, lambda: ran.append(1)))
    await asyncio.sleep(0.01)
    for task in (running, waiting):
        task.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    await asyncio.sleep(0)
    assert off_loop.in_use == 1
    go.set()
    await _until_empty(off_loop)
    assert ran == []
    assert await off_loop.run(1, lambda: 5) == 5


async def test_places_are_bounded(executor: ThreadPoolExecutor) -> None:
    off_loop = OffLoop(executor, inline_below=0, places=1)
    go = threading.Event()
    first = asyncio.create_task(off_loop.run(1, lambda: go.wait(10)))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError) as refused:
        await off_loop.run(1, lambda: None)
    assert refused.value.retry_after_s
    go.set()
    await first


async def test_a_call_is_bounded_in_time(executor: ThreadPoolExecutor) -> None:
    off_loop = OffLoop(executor, inline_below=0, limit_s=0.01)
    go = threading.Event()
    with pytest.raises(OverloadedError, match="too long"):
        await off_loop.run(1, lambda: go.wait(10))
    go.set()
    await _until_empty(off_loop)
