"""uvicorn's server without its pulse: it looks ten times a second whether it is to end, on an idle
platform too. This one is told."""

from __future__ import annotations

import asyncio
import contextlib
from types import FrameType

import uvicorn

#: So often the time in answers' headers is new.
_TICK_S = 1.0


class QuietServer(uvicorn.Server):
    """Ends on signals as uvicorn's does, or by :meth:`end`."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        """Until it is to end."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._ending.wait()

    def end(self) -> None:
        """Accept nothing any more. May be called in a signal's handler."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ending.set)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn's handler of signals."""
        super().handle_exit(sig, frame)
        self.end()
