"""Simulated operating-system processes: tasks that freeze, go on and die together.

A context variable names the process that code runs in. A task inherits it from the code that
creates it, and so does every timer and callback, so that a program written without any knowledge of
processes belongs to one as a whole. :class:`weir.testing.virtual_time.VirtualLoop` asks the process
before it runs a callback: a frozen process keeps the callback until it is resumed. Nothing of it
runs meanwhile, while the clock and everybody else go on, as after SIGSTOP. A timer that expires in
between fires on resumption.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_REPEAT_CANCEL_S = 1.0


class Process:
    """Mutable. Belongs to one loop. Code outside every process has ``current_process() is None``.

    ``dead`` becomes true with :meth:`kill` and stays so: a restart is a new process.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self.name = name
        self.frozen = False
        self.dead = False
        self._loop = loop
        self._tasks: dict[asyncio.Task[Any], None] = {}  # ordered, as a set is not
        self._held: list[asyncio.Handle] = []
        self._context = contextvars.Context()
        self._context.run(_CURRENT.set, self)

    @property
    def tasks(self) -> tuple[asyncio.Task[Any], ...]:
        """Those that have not ended, oldest first."""
        return tuple(self._tasks)

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in this process, now; what it starts belongs to the process."""
        return self._context.copy().run(function)

    def start(self, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Run a coroutine in this process."""
        return self.call(lambda: self._loop.create_task(work, name=name))

    def freeze(self) -> None:
        """Run nothing of the process until :meth:`resume`."""
        self.frozen = not self.dead

    def resume(self) -> None:
        """Go on; what became due meanwhile runs in the order in which it became due."""
        self.frozen = False
        held, self._held = self._held, []
        for handle in held:
            self._loop.call_soon(_run, handle, context=self._context)

    def kill(self) -> None:
        """End every task, and every task that the process starts from now on.

        A real process that is killed runs no more code. Here each task is cancelled, because
        asyncio knows no other end: ``finally`` clauses run, and the network discards what they
        send. Tasks that they create never begin. Errors of a dead process are ignored.
        """
        if not self.dead:
            self.dead = True
            self.resume()
            self._cancel_tasks()

    def holds(self, handle: asyncio.Handle) -> bool:
        """Called by the loop: whether the callback must not run now. A frozen process keeps it for
        later; once every task of a dead one has ended, what timers it had set is dropped."""
        if self.frozen:
            self._held.append(handle)
        return self.frozen or (self.dead and not self._tasks)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Called by the loop for each task that is created in this process."""
        self._tasks[task] = None
        if self.dead:
            task.cancel()  # before its first step: its code does not run

    def release(self, task: asyncio.Task[Any]) -> None:
        """Called by the loop for each task that has ended."""
        del self._tasks[task]
        if self.dead and not task.cancelled():
            task.exception()  # nobody is left to read it

    def _cancel_tasks(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self._tasks:  # a task may catch its cancellation and go on
            self._loop.call_later(_REPEAT_CANCEL_S, self._cancel_tasks, context=_OUTSIDE)


_CURRENT: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
_OUTSIDE = contextvars.Context()


def current_process(context: contextvars.Context | None = None) -> Process | None:
    """The process of a context; without one, of the code that asks."""
    return _CURRENT.get() if context is None else context.get(_CURRENT)


def _run(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        handle._run()
