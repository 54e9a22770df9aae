"""The virtual loop does what asyncio's own does, in no time, and says what is wrong."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from weir.testing.virtual_time import (
    DeadlockError,
    LeftoverError,
    LimitError,
    Limits,
    UnretrievedError,
    VirtualLoop,
    run,
)

Program = Callable[[list[Any]], Awaitable[None]]


async def _timers_in_order(log: list[Any]) -> None:
    loop = asyncio.get_running_loop()
    loop.call_later(0.03, log.append, "later")
    loop.call_later(0.01, log.append, "sooner")
    loop.call_soon(log.append, "soon")
    cancelled = loop.call_later(0.02, log.append, "never")
    cancelled.cancel()
    await asyncio.sleep(0.05)


async def _callbacks_between_steps(log: list[Any]) -> None:
    async def step(name: str) -> None:
        for number in range(3):
            log.append((name, number))
            await asyncio.sleep(0)

    await asyncio.gather(step("a"), step("b"))


async def _timeout(log: list[Any]) -> None:
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(1)
    except TimeoutError:
        log.append("timeout")
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)
    except TimeoutError:
        log.append("wait_for")
    log.append(await asyncio.wait_for(asyncio.sleep(0.001, "in time"), 1))


async def _task_group_fails(log: list[Any]) -> None:
    async def wait(name: str) -> None:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            log.append(("cancelled", name))
            raise

    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("no")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait("one"))
            group.create_task(fail())
    except* ValueError as errors:
        log.append([str(error) for error in errors.exceptions])


async def _queue_and_event(log: list[Any]) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
    ended = asyncio.Event()

    async def produce() -> None:
        for number in range(3):
            await queue.put(number)
            log.append(("put", number))
        ended.set()

    async def consume() -> None:
        for _ in range(3):
            await asyncio.sleep(0.01)
            log.append(("got", await queue.get()))

    await asyncio.gather(produce(), consume(), ended.wait())


async def _cancellation(log: list[Any]) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            log.append("asked")
            await asyncio.sleep(0.01)
            log.append("tidied")
            raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task.cancel("reason")
    done, _ = await asyncio.wait([task])
    log.append([each.cancelled() for each in done])


async def _context(log: list[Any]) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="outer")

    async def inner() -> None:
        name.set("inner")
        asyncio.get_running_loop().call_soon(lambda: log.append(("callback", name.get())))
        await asyncio.sleep(0.01)
        log.append(("task", name.get()))

    await asyncio.create_task(inner())
    log.append(("main", name.get()))


async def _executor(log: list[Any]) -> None:
    log.append(await asyncio.get_running_loop().run_in_executor(None, max, 2, 3))
    log.append(await asyncio.to_thread(lambda: "threaded"))
    try:
        await asyncio.get_running_loop().run_in_executor(None, lambda: 1 // 0)
    except ZeroDivisionError:
        log.append("its own error")


async def _generators(log: list[Any]) -> None:
    async def numbers() -> Any:
        try:
            for number in range(10):
                yield number
                await asyncio.sleep(0.001)
        finally:
            log.append("closed")

    async for number in numbers():
        log.append(number)
        if number == 2:
            break
    await asyncio.sleep(0.01)


PROGRAMS: list[Program] = [
    _timers_in_order,
    _callbacks_between_steps,
    _timeout,
    _task_group_fails,
    _queue_and_event,
    _cancellation,
    _context,
    _executor,
    _generators,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__.strip("_"))
def test_order_of_events_is_that_of_asyncio(program: Program) -> None:
    real: list[Any] = []
    virtual: list[Any] = []
    asyncio.run(program(real))  # type: ignore[arg-type]
    run(program(virtual))  # type: ignore[arg-type]
    assert virtual == real
    assert real


def test_time_is_exact_and_costs_nothing() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        for _ in range(10_000):
            await asyncio.sleep(1)
        return loop.time() - start_s

    began = time.perf_counter()
    assert run(main(), start_s=0.0) == 10_000.0
    assert time.perf_counter() - began < 100  # a hundredth of the time that it stands for


def test_timers_of_one_time_run_in_the_order_in_which_they_were_set() -> None:
    order: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        when = loop.time() + 1
        for number in range(50):
            loop.call_at(when, order.append, number)
        await asyncio.sleep(2)

    run(main())
    assert order == list(range(50))


@pytest.mark.parametrize("timers", [3, 1_000])
def test_a_cancelled_timer_moves_no_clock(timers: int) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        for number in range(timers):
            loop.call_later(0.5 + number, print).cancel()
        ended = loop.create_future()
        loop.call_later(2_000, ended.set_result, None)
        times: list[float] = []
        loop.call_later(1, lambda: times.append(loop.time()))
        await ended
        assert loop.turns <= 4  # none for a timer that was cancelled
        return times[0]

    assert run(main(), start_s=5.0) == 6.0


def test_time_never_goes_back() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        times: list[float] = []
        loop.call_at(loop.time() - 5, lambda: times.append(loop.time()))
        await asyncio.sleep(1)
        return [*times, loop.time()]

    assert run(main(), start_s=100.0) == [100.0, 101.0]


def test_a_deadlock_names_who_waits() -> None:
    async def wait_for_nobody() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.create_task(wait_for_nobody(), name="lonely")

    with pytest.raises(DeadlockError, match=r"lonely: .*wait_for_nobody.*test_virtual_time"):
        run(main())


@pytest.mark.parametrize(
    ("pause_s", "limits"),
    [
        (10.0, Limits(span_s=1_000)),
        (0.0, Limits(turns_at_once=500)),
        (0.001, Limits(turns=500)),
    ],
    ids=["time", "at once", "turns"],
)
def test_what_never_ends_is_stopped(pause_s: float, limits: Limits) -> None:
    tidied = False

    async def main() -> None:
        nonlocal tidied
        try:
            while True:  # noqa: ASYNC110 - to be stopped
                await asyncio.sleep(pause_s)
        finally:
            await asyncio.sleep(1)
            tidied = True

    with pytest.raises(LimitError, match="main"):
        run(main(), limits=limits)
    assert tidied


def test_tasks_that_are_left_are_an_error() -> None:
    async def main() -> None:
        asyncio.create_task(asyncio.sleep(1), name="leftover")  # noqa: RUF006

    with pytest.raises(LeftoverError, match="leftover"):
        run(main())


async def _fail() -> None:
    raise ValueError("unseen")


def _task_fails() -> object:
    return asyncio.get_running_loop().create_task(_fail())


def _callback_fails() -> object:
    return asyncio.get_running_loop().call_soon(int, "unseen")


@pytest.mark.parametrize("begin", [_task_fails, _callback_fails])
@pytest.mark.parametrize("keep", [True, False])
def test_exceptions_that_nobody_saw_are_an_error(begin: Callable[[], object], keep: bool) -> None:
    kept: list[object] = []

    async def main() -> None:
        started = begin()
        if keep:
            kept.append(started)
        del started
        await asyncio.sleep(1)

    with pytest.raises(UnretrievedError, match="unseen") as caught:
        run(main())
    assert str(caught.value).count("unseen") == 1


def test_an_exception_that_was_seen_is_none() -> None:
    async def main() -> str:
        task = asyncio.create_task(_fail())
        (error,) = await asyncio.gather(task, return_exceptions=True)
        return str(error)

    assert run(main()) == "unseen"


def test_the_program_s_own_error_comes_through() -> None:
    with pytest.raises(ValueError, match="unseen"):
        run(_fail())


def test_a_runner_takes_the_loop() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(asyncio.sleep(3_600, "first")) == "first"
        assert runner.run(asyncio.sleep(3_600, "second")) == "second"
        assert runner.get_loop().time() == 1_000 + 7_200


def test_a_function_in_the_executor_takes_the_time_that_it_is_given() -> None:
    async def main() -> float:
        await asyncio.to_thread(sum, [1, 2])
        return asyncio.get_running_loop().time()

    assert run(main(), start_s=0.0, executor_s=0.25) == 0.25


def test_there_are_no_sockets() -> None:
    async def main() -> None:
        await asyncio.open_connection("127.0.0.1", 1)

    with pytest.raises(NotImplementedError, match="no sockets"):
        run(main())


def test_sets_of_tasks_have_the_same_order_in_every_run() -> None:
    async def main() -> list[str]:
        garbage = [object() for _ in range(7)]  # moves later objects' addresses
        tasks = {asyncio.create_task(asyncio.sleep(1), name=str(n)) for n in range(100)}
        del garbage
        done, _ = await asyncio.wait(tasks)
        return [task.get_name() for task in done]

    assert run(main()) == run(main())
