"""One abuse, from a process of its own: ``python -m load_tests.abuse.attacker URL KEY MODEL NAME``.

It begins and stops with each line of its standard input. When that ends it prints how often each
status came (0: none).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from load_tests.abuse.abuses import Abuse, Request, bodies, named

#: Different requests of an abuse; they are made before it begins.
_DIFFERENT = 12
_READ_TIMEOUT_S = 60.0


def main(argv: Sequence[str]) -> int:
    """Command line."""
    url, key, model, name = argv
    statuses: Counter[int] = Counter()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_attack(url, key, model, named(name), statuses))
    print(json.dumps({str(status): count for status, count in sorted(statuses.items())}))
    return 0


async def _attack(url: str, key: str, model: str, abuse: Abuse, statuses: Counter[int]) -> None:
    place = urlsplit(url)
    host, port = place.hostname or "", place.port or 80
    requests = [_rendered(request, key) for request in bodies(abuse, model, _DIFFERENT)]
    turns = itertools.cycle(requests)
    print("ready", flush=True)
    tasks: list[asyncio.Task[None]] = []
    while await _line():
        if not tasks:
            works = [_works(abuse, host, port, turns, statuses) for _ in range(abuse.workers)]
            tasks = [asyncio.create_task(work) for work in works]
            continue
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        tasks = []


def _works(
    abuse: Abuse, host: str, port: int, turns: Iterator[bytes], statuses: Counter[int]
) -> Coroutine[Any, Any, None]:
    if abuse.computes:
        return _compute()
    return _repeat(_hold if abuse.slow else _send, host, port, turns, statuses)


async def _compute() -> None:
    while True:
        hashlib.sha256(bytes(1_000_000)).digest()
        await asyncio.sleep(0)


async def _line() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def _rendered(request: Request, key: str) -> bytes:
    if not request.path:
        return b""
    headers = {
        "host": "weir",
        "authorization": f"Bearer {key}",
        "content-type": "application/json",
        "content-length": str(len(request.body)),
        "connection": "close",
        **request.headers,
    }
    head = [f"POST {request.path} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items()), "", ""]
    return "\r\n".join(head).encode() + request.body


async def _repeat(
    send: Callable[[str, int, bytes], Awaitable[int]],
    host: str,
    port: int,
    turns: Iterator[bytes],
    statuses: Counter[int],
) -> None:
    while True:
        status = 0
        try:
            status = await send(host, port, next(turns))
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            await asyncio.sleep(0.05)
        statuses[status] += 1


async def _send(host: str, port: int, request: bytes) -> int:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        async with asyncio.timeout(_READ_TIMEOUT_S):
            status = int((await reader.readuntil(b"\r\n")).split()[1])
            await reader.read()
        return status
    finally:
        writer.close()


async def _hold(host: str, port: int, request: bytes) -> int:
    """Sends headers, and then a byte a second, until the server has enough of it."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        head, _, body = request.partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n" if head else b"")
        answer = asyncio.create_task(reader.readline())
        for byte in body or bytes(3600):
            await asyncio.wait({answer}, timeout=1.0)
            if answer.done():
                break
            if body:
                writer.write(bytes([byte]))
        line = answer.result() if answer.done() else b""
        answer.cancel()
        return int(line.split()[1]) if line else 0
    finally:
        writer.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
