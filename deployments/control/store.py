"""The database as the control process uses it: in a few threads, never on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine

from weir.database import reading, writing
from weir.errors import OverloadedError

_Result = TypeVar("_Result")
_THREADS = 4
_MOST_WAITING = 128


class Store:
    """Runs pieces of work, each in a transaction of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(_THREADS, "weir-control-db")
        self._waiting = 0

    async def read(self, work: Callable[[Connection], _Result]) -> _Result:
        """What ``work`` finds.

        Raises:
            DatabaseAwayError: the database does not answer.
            OverloadedError: too much waits for it already.
        """

        def run() -> _Result:
            with reading(self._engine) as connection:
                return work(connection)

        return await self.in_thread(run)

    async def write(self, work: Callable[[Connection], _Result]) -> _Result:
        """All of what ``work`` does is done, or nothing. Raises as :meth:`read`."""

        def run() -> _Result:
            with writing(self._engine) as connection:
                return work(connection)

        return await self.in_thread(run)

    async def in_thread(self, run: Callable[[], _Result]) -> _Result:
        """Something else that may wait for the database."""
        if self._waiting >= _MOST_WAITING:
            raise OverloadedError("Too many requests wait for the database.", retry_after_s=1.0)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Stop, once what runs has ended."""
        self._threads.shutdown()
        self._engine.dispose()
