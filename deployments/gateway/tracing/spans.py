"""Spans as plain data. OpenTelemetry's own objects are made of them where they are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Value = str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float]
Kind = Literal["internal", "server", "client"]


class Span(NamedTuple):
    """One step. Times are on the loop's clock; ``parent_id`` is empty for one without a parent.
    ``error``: the kind of error that it ended with (empty: none)."""

    name: str
    span_id: str
    parent_id: str
    start_s: float
    end_s: float
    kind: Kind
    attributes: Mapping[str, Value]
    error: str = ""


@dataclass(frozen=True, slots=True)
class KeptTrace:
    """A request's spans, the request's own first. ``kept``: why. ``ahead_s``: seconds since the
    epoch less the loop's clock."""

    trace_id: str
    state: str
    request_id: str
    tenant: str
    kept: str
    ahead_s: float
    spans: tuple[Span, ...]
