from __future__ import annotations

import asyncio

from deployments.batches.window import FEW, Place, Window


async def _waiters(window: Window, count: int) -> list[asyncio.Task[Place]]:
    tasks = [asyncio.ensure_future(window.enter()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_a_few_may_wait_while_nothing_flows() -> None:
    window = Window(100)
    tasks = await _waiters(window, 50)
    assert sum(task.done() for task in tasks) == FEW
    assert window.room == 0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_as_many_wait_as_flow_up_to_the_bound() -> None:
    window = Window(100)
    tasks = await _waiters(window, 300)
    for _ in range(200):
        for task in tasks:
            if task.done():
                task.result().flow()
        await asyncio.sleep(0)
    assert window.held == 100
    assert sum(task.done() for task in tasks) == 100
    for task in tasks:
        if task.done():
            task.result().leave()
            task.result().leave()
    await asyncio.sleep(0)
    assert window.flowing == 0
    # Those that were let in while many flowed wait on.
    assert FEW <= window.waiting <= 50
    assert window.room == 0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_places_of_who_is_cancelled_go_to_others() -> None:
    window = Window(1)
    first = await window.enter()
    tasks = await _waiters(window, 3)
    tasks[0].cancel()
    first.leave()  # gives the place to the second one: the first has been cancelled
    tasks[1].cancel()
    await asyncio.gather(*tasks[:2], return_exceptions=True)
    assert (await tasks[2]) is not None
    assert window.held == 1
