"""Database and storage are asked in threads of their own, so that neither the event loop nor the
reading of prompts waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")


class Threads:
    """A few threads. A call that is cancelled still goes on to its end."""

    def __init__(self, threads: int = 4) -> None:
        self._executor = ThreadPoolExecutor(threads, "weir-batches")

    async def run(
        self,
        function: Callable[ParamsT, ResultT],
        *args: ParamsT.args,
        **kwargs: ParamsT.kwargs,
    ) -> ResultT:
        """``function(...)``, in one of them."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))

    def close(self) -> None:
        """Start nothing more; what runs goes on to its end."""
        self._executor.shutdown(wait=False, cancel_futures=True)
