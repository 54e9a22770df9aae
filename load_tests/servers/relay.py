"""A plain relay: the least that an ASGI app can do in front of an upstream. It authenticates
nobody, checks nothing and counts nothing; a gateway that comes near it has little left to lose.

``python -m load_tests.servers.relay --port P --upstream http://127.0.0.1:Q``
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import aiohttp
import uvicorn


class Relay:
    """ASGI: the body goes up as it came, bytes come down as they arrive."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        url, headers = self._upstream + scope["path"], {"content-type": "application/json"}
        async with self._session.request(
            scope["method"], url, data=body, headers=headers
        ) as answer:
            kind = answer.headers.get("content-type", "application/json").encode()
            headers_back = [(b"content-type", kind)]
            start = {"type": "http.response.start", "status": answer.status}
            await send({**start, "headers": headers_back})
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    options = parser.parse_args(argv)
    uvicorn.run(
        Relay(options.upstream),
        host="127.0.0.1",
        port=options.port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
