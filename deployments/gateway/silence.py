"""Streams that make their clients wait are kept open.

Proxies, load balancers and HTTP clients close a connection on which nothing has come for some
time, often 30 or 60 seconds. A request may wait longer than that: in the queue of its class, for a
replica that comes up, for a long prompt, in the middle of an answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from deployments.gateway.sink import Headers, Sink

#: A stream on which nothing was written for so long gets a line that clients skip.
BETWEEN_S = 15.0
_LOOK_S = 1.0


@dataclass(slots=True)
class _Wait:
    """``since_s``: when something was last seen to be written; at first, when the request came."""

    headers: Headers
    since_s: float


class Silence:
    """Looks at all streams once a second, so that neither a request nor a token sets a timer.

    ``first_s``: so long after its arrival a request's stream is opened (None: with its first
    output). Needs a running event loop: its clock is the only one.
    """

    def __init__(self, first_s: float | None, between_s: float = BETWEEN_S) -> None:
        self._first_s = first_s
        self._between_s = between_s
        self._look_s = min(_LOOK_S, between_s, first_s or between_s)
        self._loop = asyncio.get_running_loop()
        self._waits: dict[Sink, _Wait] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, sink: Sink, arrival_s: float, headers: Headers) -> None:
        """Keep the stream open from now on. ``headers``: of one that is opened early."""
        self._waits[sink] = _Wait(headers, arrival_s)
        if self._timer is None:
            self._timer = self._loop.call_later(self._look_s, self._look)

    def forget(self, sink: Sink) -> None:
        """The request has ended."""
        self._waits.pop(sink, None)

    def _look(self) -> None:
        now_s = self._loop.time()
        for sink, wait in self._waits.items():
            if not sink.quiet:
                sink.quiet, wait.since_s = True, now_s
                continue
            limit_s = self._between_s if sink.status else self._first_s
            if limit_s is not None and now_s - wait.since_s >= limit_s:
                wait.since_s = now_s
                sink.keep_open(wait.headers)
        self._timer = self._loop.call_later(self._look_s, self._look) if self._waits else None
