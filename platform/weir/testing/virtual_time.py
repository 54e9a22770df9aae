"""An asyncio event loop whose clock is virtual: it jumps to the next timer when nothing is ready.

Callbacks run in the order in which they were scheduled, timers in the order of their times and,
at the same time, in the order in which they were set. Tasks hash by their number, so that sets of
tasks (``asyncio.wait``, ``TaskGroup``) have the same order in every run. Two runs of the same
program with the same seeds are then the same, step by step. In another Python process that holds
only if the program does not depend on the order of a set of strings (see ``PYTHONHASHSEED``).

There are no threads and no sockets. ``run_in_executor`` calls the function from a task, which gives
its result ``executor_s`` later.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import threading
from asyncio.base_events import BaseEventLoop
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Executor
from contextvars import Context
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from weir.testing.processes import Process, current_process

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Not zero, so that code which takes a time of zero for "never" behaves as it does live.
START_S = 1_000.0
_MOST_CANCELLED_TIMERS = 200


class VirtualTimeError(Exception):
    """A program misbehaved in virtual time; the message says how."""


class DeadlockError(VirtualTimeError):
    """Nothing is ready, no timer is set, and the program has not ended."""


class LimitError(VirtualTimeError):
    """The program ran longer than its :class:`Limits`."""


class LeftoverError(VirtualTimeError):
    """The program ended and left tasks that had not."""


class UnretrievedError(VirtualTimeError):
    """A task or callback failed and nobody looked at its exception."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``span_s``: of virtual time. ``turns``: iterations of the loop. ``turns_at_once``: iterations
    during which the clock stands still, which a loop of ``sleep(0)`` never leaves."""

    span_s: float = 86_400.0
    turns: int = 20_000_000
    turns_at_once: int = 100_000


class VirtualLoop(BaseEventLoop):
    """See the module's docstring. ``asyncio.Runner(loop_factory=VirtualLoop)`` takes it."""

    # The base class's own, which its type stubs leave out.
    _stopping: bool
    _thread_id: int | None
    _check_closed: Callable[[], None]

    def __init__(
        self, start_s: float = START_S, limits: Limits | None = None, executor_s: float = 0.0
    ) -> None:
        super().__init__()
        self.turns = 0
        self.problems: list[dict[str, Any]] = []
        self._now_s = start_s
        self._end_s = 0.0
        self._limits = limits or Limits()
        self._executor_s = executor_s
        self._waiting: deque[tuple[asyncio.Handle, Process | None]] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Process | None]] = []
        self._cancelled_timers = 0
        self._numbers = itertools.count(1)
        self._processes: dict[Process, None] = {}
        self._failed: list[asyncio.Task[Any]] = []
        self._turns_left = self._turns_at_once_left = 0
        self._grant()
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _, problem: self.problems.append(problem))

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    # -- what asyncio calls to have something run

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """As asyncio's."""
        self._check()
        handle = asyncio.Handle(callback, args, self, context)
        self._waiting.append((handle, current_process(context)))
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """As :meth:`call_soon`.

        Raises:
            RuntimeError: called from another thread.
        """
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's; timers of the same time run in the order in which they were set."""
        self._check()
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        entry = (when, next(self._numbers), timer, current_process(context))
        heapq.heappush(self._timers, entry)
        return timer

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Call the function on this thread, in a task; its result arrives ``executor_s`` later."""

        async def call() -> T:
            result = func(*args)
            await asyncio.sleep(self._executor_s)
            return result

        return self.create_task(call())

    # -- one iteration

    def _run_once(self) -> None:
        """Run what is ready; called by ``run_forever``."""
        self._drop_cancelled_timers()
        if not self._waiting and not self._stopping:
            self._jump()
        while self._timers and self._timers[0][0] <= self._now_s:
            _, _, timer, process = heapq.heappop(self._timers)
            self._waiting.append((timer, process))
        self._count()
        for _ in range(len(self._waiting)):
            handle, process = self._waiting.popleft()
            if handle.cancelled() or (process is not None and process.holds(handle)):
                continue
            handle._run()

    def _jump(self) -> None:
        if not self._timers:
            raise DeadlockError(
                f"At {self._now_s:.6f} s nothing is ready, no timer is set, and these wait:"
                + _listing(self.pending())
            )
        when = self._timers[0][0]
        if when > self._now_s:
            self._now_s = when
            self._turns_at_once_left = self._limits.turns_at_once
        if self._now_s > self._end_s:
            self._exceed(f"{self._limits.span_s} virtual seconds")

    def _count(self) -> None:
        self.turns += 1
        self._turns_left -= 1
        self._turns_at_once_left -= 1
        if self._turns_left < 0:
            self._exceed(f"{self._limits.turns} iterations")
        if self._turns_at_once_left < 0:
            self._exceed(f"{self._limits.turns_at_once} iterations while the clock stood still")

    def _exceed(self, what: str) -> NoReturn:
        self._grant()  # so that the tasks' cleanup can run
        raise LimitError(
            f"The program took more than {what}; it is at {self._now_s:.6f} s, and these have not "
            "ended:" + _listing(self.pending())
        )

    def _grant(self) -> None:
        self._end_s = self._now_s + self._limits.span_s
        self._turns_left = self._limits.turns
        self._turns_at_once_left = self._limits.turns_at_once

    def _drop_cancelled_timers(self) -> None:
        if self._cancelled_timers > max(_MOST_CANCELLED_TIMERS, len(self._timers) // 2):
            self._timers = [entry for entry in self._timers if not entry[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled_timers += 1

    # -- tasks

    def pending(self) -> list[asyncio.Task[Any]]:
        """Tasks that have not ended, oldest first."""
        return sorted(asyncio.all_tasks(self), key=hash)

    def failures(self) -> list[BaseException]:
        """Exceptions that nobody has looked at, of tasks and callbacks."""
        own = [task for task in self._failed if task._log_traceback]
        found = [(task, task.exception()) for task in own]  # marks them as looked at
        told = [(p.get("future"), p.get("exception") or p.get("message")) for p in self.problems]
        every = [*found, *[(task, error) for task, error in told if task not in own]]
        return [e if isinstance(e, BaseException) else VirtualTimeError(e) for _, e in every]

    def resume_all(self) -> None:
        """Resume every frozen process, so that its tasks can be cancelled."""
        for process in self._processes:
            process.resume()

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Any,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        process = current_process(context)
        task = _Task(next(self._numbers), work, self, context, process)
        if process is not None:
            self._processes[process] = None
            process.adopt(task)
        task.add_done_callback(lambda _: self._ended(task, process), context=Context())
        return task

    def _ended(self, task: asyncio.Task[Any], process: Process | None) -> None:
        if process is not None:
            process.release(task)
        if not task.cancelled() and task._exception is not None:
            self._failed.append(task)

    # -- what there is not

    def _check(self) -> None:
        self._check_closed()
        if self._thread_id not in (None, threading.get_ident()):
            raise RuntimeError("A loop in virtual time was called from another thread.")

    async def _no_network(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("There are no sockets, files or processes in virtual time.")

    getaddrinfo = getnameinfo = _no_network
    create_connection = create_server = create_datagram_endpoint = _no_network
    subprocess_exec = subprocess_shell = connect_read_pipe = connect_write_pipe = _no_network
    sendfile = _no_network

    def close(self) -> None:
        """Let go of everything that is scheduled."""
        super().close()
        self._waiting.clear()
        self._timers.clear()


class _Task(asyncio.Task[Any]):
    """A task whose hash is its number; ``process`` is the one it runs in."""

    def __init__(
        self,
        number: int,
        work: Coroutine[Any, Any, Any],
        loop: VirtualLoop,
        context: Context | None,
        process: Process | None,
    ) -> None:
        self._number = number
        self.process = process
        super().__init__(work, loop=loop, name=f"task-{number}", context=context)

    def __hash__(self) -> int:
        return self._number


def run(
    main: Coroutine[Any, Any, T],
    *,
    start_s: float = START_S,
    limits: Limits | None = None,
    executor_s: float = 0.0,
) -> T:
    """Run a program in virtual time, to its end.

    Raises:
        DeadlockError, LimitError: it cannot end, or takes too long.
        LeftoverError: it ended and left tasks that had not.
        UnretrievedError: a task or callback failed and nobody looked.
    """
    loop = VirtualLoop(start_s, limits, executor_s)
    with contextlib.ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner(loop_factory=lambda: loop))
        stack.callback(loop.resume_all)
        result = runner.run(main)
        left = loop.pending()
        if left:
            raise LeftoverError("The program ended, and these had not:" + _listing(left))
    failures = loop.failures()
    if failures:
        told = "".join(f"\n  {type(error).__name__}: {error}" for error in failures)
        raise UnretrievedError(f"Nobody looked at these exceptions:{told}") from failures[0]
    return result


def _listing(tasks: Iterable[asyncio.Task[Any]]) -> str:
    return "".join(f"\n  {_describe(task)}" for task in tasks) or " (no task)"


def _describe(task: asyncio.Task[Any]) -> str:
    work: Any = task.get_coro()
    name = getattr(work, "__qualname__", repr(work))
    process = task.process if isinstance(task, _Task) else None
    owner = f" of {process.name}" if process is not None else ""
    place = "".join(f", at {f.f_code.co_filename}:{f.f_lineno}" for f in task.get_stack(limit=1))
    return f"{task.get_name()}{owner}: {name}{place}"
