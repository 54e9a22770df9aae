"""A TCP proxy that spoils what comes back, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Fault = Literal["none", "killed", "slow", "hanging", "garbage"]
SLOW_S = 0.5


class FaultyProxy:
    """In front of ``port``. :meth:`fail` changes what it does from that moment on."""

    def __init__(self, port: int, seed: int) -> None:
        self._upstream = port
        self._rng = random.Random(seed)
        self._fault: Fault = "none"
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    def fail(self, fault: Fault) -> None:
        """From now on: ``killed`` hangs up and refuses, ``slow`` answers after 500 ms, ``hanging``
        not at all, ``garbage`` with random bytes."""
        asyncio.run_coroutine_threadsafe(self._change(fault), self._loop).result(5)

    async def _change(self, fault: Fault) -> None:
        self._fault = fault
        if fault == "killed":
            await self._close()
        elif self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, to_upstream = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._open |= {writer, to_upstream}
        there = asyncio.ensure_future(_copy(reader, to_upstream))
        try:
            while data := await upstream.read(65536):
                if self._fault == "slow":
                    asyncio.get_running_loop().call_later(SLOW_S, _write, writer, data)
                elif self._fault == "garbage":
                    writer.write(self._rng.randbytes(len(data)))
                elif self._fault != "hanging":
                    writer.write(data)
        except ConnectionError:
            pass
        finally:
            there.cancel()
            self._open -= {writer, to_upstream}
            for each in (writer, to_upstream):
                each.close()

    def _run(self) -> None:
        self._loop.run_forever()

    async def _stop(self) -> None:
        await self._close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def faulty_proxy(port: int, seed: int) -> Iterator[FaultyProxy]:
    """A proxy that works until told otherwise."""
    proxy = FaultyProxy(port, seed)
    thread = threading.Thread(target=proxy._run, name="faulty-proxy", daemon=True)
    thread.start()
    try:
        proxy.fail("none")
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy._stop(), proxy._loop).result(10)
        proxy._loop.call_soon_threadsafe(proxy._loop.stop)
        thread.join(10)
        proxy._loop.close()


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()
