"""The one schema that every trace format is read into."""

from __future__ import annotations

from dataclasses import dataclass


class TraceError(ValueError):
    """A trace file that cannot be read as what it was said to be."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace.

    ``arrival_s`` counts from the trace's start; in a closed-loop trace it counts for the first
    request of a session only. ``block_hashes`` are chained (equal hash: equal whole prefix) and
    name full blocks of the trace's ``block_size``; an empty tuple means that the trace knows
    nothing of prefixes. ``after`` holds ``(index, think_s)`` pairs: the request is sent when,
    for every pair, the request at ``index`` has finished and ``think_s`` has passed.
    """

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] = ()
    tenant: str = "default"
    priority_class: str = "standard"
    session: str | None = None
    after: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival (open loop) or session by session (closed loop).

    ``sessions`` is empty for an open-loop trace; otherwise it holds, per session, the indices
    of its requests, in an order in which every request follows those it waits for.
    ``tick_s`` is the resolution of the arrival times (0: exact).
    """

    name: str
    format: str
    block_size: int
    requests: tuple[TraceRequest, ...]
    sessions: tuple[tuple[int, ...], ...] = ()
    tick_s: float = 0.0

    @property
    def closed_loop(self) -> bool:
        """Whether a request waits for the answers to earlier ones of its session."""
        return bool(self.sessions)

    @property
    def span_s(self) -> float:
        """Time from the first to the last arrival of an open-loop trace, plus one tick."""
        if not self.requests:
            return 0.0
        return self.requests[-1].arrival_s - self.requests[0].arrival_s + self.tick_s
