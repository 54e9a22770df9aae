"""Work whose length grows with a prompt runs beside the event loop when the prompt is long.

While the loop's own thread runs a long function, every stream of the gateway waits. Tokenizing as
``PromptEncoder`` does it releases the interpreter's lock: 2 MiB take about a second, and the loop
then waits 84 ms at most, while the ids become Python's numbers. Rendering a template holds the
lock, and a thread lets the loop in every few milliseconds; one message of 4 MiB renders in half a
millisecond, 4 MiB in 20,000 messages in 0.3 s. (Measured on two cores with the teacher's tokenizer,
which makes a token of about two characters.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from weir.errors import OverloadedError

ResultT = TypeVar("ResultT")

#: Texts below this many characters are tokenized in about a millisecond.
INLINE_BELOW = 4 * 1024


class OffLoop:
    """Runs functions inline when they are short, else in ``executor``, whose threads bound how
    many run at a time. At most ``places`` calls run or wait there; one may take ``limit_s``."""

    def __init__(
        self,
        executor: Executor,
        *,
        inline_below: int = INLINE_BELOW,
        places: int = 64,
        limit_s: float = 30.0,
    ) -> None:
        self._executor = executor
        self._inline_below = inline_below
        self._places = places
        self._limit_s = limit_s
        self._in_use = 0

    @property
    def in_use(self) -> int:
        """Calls that run or wait in the executor."""
        return self._in_use

    async def run(self, size: int, function: Callable[[], ResultT]) -> ResultT:
        """``function()``; ``size`` says how long it may take (characters of text, or so).

        A cancelled call that waits is never run. One that runs goes on to its end, because a
        thread cannot be stopped, and keeps its place until then.

        Raises:
            OverloadedError: too many long prompts wait, or this one took too long.
        """
        if size < self._inline_below:
            return function()
        if self._in_use >= self._places:
            raise OverloadedError("Too many long prompts are being read.", retry_after_s=1.0)
        loop = asyncio.get_running_loop()
        self._in_use += 1
        begun = False

        def work() -> ResultT:
            nonlocal begun
            begun = True
            try:
                return function()
            finally:
                # The loop may be gone by now.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._leave)

        running = loop.run_in_executor(self._executor, work)
        try:
            async with asyncio.timeout(self._limit_s):
                return await running
        except TimeoutError:
            raise OverloadedError("Reading the prompt took too long.", retry_after_s=1.0) from None
        finally:
            if not begun:
                self._leave()

    def _leave(self) -> None:
        self._in_use -= 1
