"""The last traces that were kept, by the request's id or the trace's: for ``weir trace``."""

from __future__ import annotations

from collections import deque
from itertools import islice

from deployments.gateway.tracing.spans import KeptTrace


class RecentTraces:
    """At most ``most``; the oldest goes first."""

    def __init__(self, most: int) -> None:
        self._traces: deque[KeptTrace] = deque(maxlen=most)

    def __len__(self) -> int:
        return len(self._traces)

    def add(self, trace: KeptTrace) -> None:
        """Keep one more."""
        self._traces.append(trace)

    def find(self, name: str) -> list[KeptTrace]:
        """Those whose request or trace has that id, newest first: a client may give several
        requests one id, and several requests may belong to one trace."""
        return [each for each in reversed(self._traces) if name in (each.request_id, each.trace_id)]

    def newest(self, count: int) -> list[KeptTrace]:
        """The last ones, newest first."""
        return list(islice(reversed(self._traces), count))
