"""What belongs to a process freezes and dies with it; the rest goes on."""

from __future__ import annotations

import asyncio

import pytest

from weir.testing.processes import Process, current_process
from weir.testing.virtual_time import DeadlockError, run


async def _tick(log: list[float]) -> None:
    while True:
        await asyncio.sleep(1)
        log.append(asyncio.get_running_loop().time())


async def _tick_through_children(log: list[float]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_tick(log))


async def _tick_with_timers(log: list[float]) -> None:
    loop = asyncio.get_running_loop()

    def ring() -> None:
        log.append(loop.time())
        loop.call_later(1, ring)

    loop.call_later(1, ring)


@pytest.mark.parametrize("tick", [_tick, _tick_through_children, _tick_with_timers])
def test_a_frozen_process_makes_no_progress(tick: object) -> None:
    async def main() -> tuple[list[float], list[float]]:
        inside: list[float] = []
        outside: list[float] = []
        process = Process(asyncio.get_running_loop(), "frozen")
        process.start(tick(inside))  # type: ignore[operator]
        other = asyncio.create_task(_tick(outside))
        await asyncio.sleep(3.5)
        process.freeze()
        await asyncio.sleep(10)
        assert len(inside) == 3
        process.resume()
        await asyncio.sleep(3)
        process.kill()
        other.cancel()
        await asyncio.sleep(10)
        return inside, outside

    inside, outside = run(main(), start_s=0.0)
    # The timer that expired meanwhile fires on resumption, and the rest follows from there.
    assert inside in ([1, 2, 3, 13.5, 14.5, 15.5], [1, 2, 3, 13.5, 14.5, 15.5, 16.5])
    assert len(outside) == 16


def test_what_became_due_runs_in_its_order() -> None:
    async def main() -> list[str]:
        order: list[str] = []
        loop = asyncio.get_running_loop()
        process = Process(loop, "frozen")

        def plan() -> None:
            loop.call_later(2, order.append, "second")
            loop.call_later(1, order.append, "first")
            loop.call_later(3, order.append, "never").cancel()

        process.call(plan)
        process.freeze()
        await asyncio.sleep(5)
        process.resume()
        await asyncio.sleep(0)
        return order

    assert run(main()) == ["first", "second"]


def test_a_killed_process_ends_even_where_cancellation_is_caught() -> None:
    async def stubborn(log: list[str]) -> None:
        for number in range(3):
            try:
                await asyncio.sleep(1_000)
            except asyncio.CancelledError:
                log.append(f"ignored {number}")
        child = asyncio.create_task(_tick([]))
        await child

    async def failing() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            raise ValueError("of no interest any more")

    async def main() -> tuple[list[str], int]:
        log: list[str] = []
        process = Process(asyncio.get_running_loop(), "killed")
        process.start(stubborn(log))
        process.start(failing())
        await asyncio.sleep(1)
        process.kill()
        await asyncio.wait(process.tasks)
        await asyncio.sleep(10)
        return log, len(process.tasks)

    assert run(main()) == (["ignored 0", "ignored 1", "ignored 2"], 0)


def test_a_killed_process_starts_nothing_new() -> None:
    async def heir(log: list[str]) -> None:
        log.append("ran")

    async def die(log: list[str]) -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            asyncio.create_task(heir(log))  # noqa: RUF006

    async def main() -> list[str]:
        log: list[str] = []
        process = Process(asyncio.get_running_loop(), "killed")
        process.start(die(log))
        await asyncio.sleep(1)
        process.kill()
        await asyncio.sleep(10)
        assert process.tasks == ()
        return log

    assert run(main()) == []


def test_a_process_knows_its_own() -> None:
    async def who() -> str | None:
        await asyncio.sleep(0)
        process = current_process()
        return process.name if process is not None else None

    async def main() -> list[str | None]:
        loop = asyncio.get_running_loop()
        first, second = Process(loop, "first"), Process(loop, "second")
        return await asyncio.gather(first.start(who()), second.start(who()), who())

    assert run(main()) == ["first", "second", None]


def test_waiting_for_a_frozen_process_is_a_deadlock_that_names_it() -> None:
    async def main() -> None:
        process = Process(asyncio.get_running_loop(), "icy")
        task = process.start(asyncio.sleep(1))
        process.freeze()
        await task

    with pytest.raises(DeadlockError, match="of icy: sleep"):
        run(main())
