"""A request's place in a trace: W3C's Trace Context, read, made and passed on."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

PARENT_HEADER = b"traceparent"
STATE_HEADER = b"tracestate"
#: What the answer's client is told (W3C Trace Context, level 2).
RESPONSE_HEADER = b"traceresponse"
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MOST_STATE_CHARS = 512
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class Parent:
    """What a client says of the trace that its request belongs to. Ids are lower-case hex."""

    trace_id: str
    span_id: str
    sampled: bool


def read_parent(told: str | None) -> Parent | None:
    """The ``traceparent`` of a client; None where there is none, or it cannot be used. A version
    of the format that is not known yet may have more fields behind those of version 0."""
    found = _PARENT.fullmatch(told.strip()) if told else None
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == _NO_TRACE:
        return None
    return None if span_id == _NO_SPAN else Parent(trace_id, span_id, bool(int(flags, 16) & 1))


@dataclass(slots=True)
class Trace:
    """A request's part of a trace. ``span_id``: of the request as a whole; ``parent_id``: of the
    client's span (empty: none); ``state``: the client's ``tracestate``. ``sampled``: it is kept
    whatever becomes of it. ``new_id`` makes ids of further spans. ``kept``: why it is kept, empty
    until its end, or if it is not."""

    trace_id: str
    span_id: str
    parent_id: str
    sampled: bool
    new_id: Callable[[], str]
    state: str = ""
    kept: str = ""

    def parent_of(self, span_id: str) -> str:
        """The ``traceparent`` for whoever works for the span."""
        return f"00-{self.trace_id}-{span_id}-{'01' if self.sampled else '00'}"

    @property
    def response(self) -> str:
        """The value of :data:`RESPONSE_HEADER`."""
        return self.parent_of(self.span_id)


class Contexts:
    """Begins traces.

    ``ratio``: the share of traces that is sampled, by the last 56 bits of their ids, so that all
    who see one trace decide alike. ``parents``: see
    :attr:`weir.settings.tracing.TracingSettings.parent`.
    """

    def __init__(
        self, ratio: float, parents: Literal["follow", "join", "ignore"], rng: random.Random
    ) -> None:
        self._bound = round(ratio * (1 << 56))
        self._parents = parents
        self._bits = rng.getrandbits

    def _span_id(self) -> str:
        return f"{self._bits(64) or 1:016x}"

    def begin(self, header: Callable[[bytes], str | None]) -> Trace:
        """The trace of a request with these headers."""
        parent = None
        if self._parents != "ignore":
            parent = read_parent(header(PARENT_HEADER))
        if parent is None:
            trace_id = f"{self._bits(128) or 1:032x}"
            sampled = self._is_sampled(trace_id)
            return Trace(trace_id, self._span_id(), "", sampled, self._span_id)
        sampled = self._is_sampled(parent.trace_id)
        if self._parents == "follow" and parent.sampled:
            sampled = True
        state = (header(STATE_HEADER) or "")[:_MOST_STATE_CHARS]
        own, new_id = self._span_id(), self._span_id
        return Trace(parent.trace_id, own, parent.span_id, sampled, new_id, state)

    def _is_sampled(self, trace_id: str) -> bool:
        return int(trace_id[-14:], 16) < self._bound
