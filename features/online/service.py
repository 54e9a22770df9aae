"""A feature service as the request path sees it: which fields to read, and what they mean.

A :class:`ServicePlan` is compiled once per service: the hash fields of all its features, in the
order in which Redis returns them. Reading a row is then one pass over the reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from features.online.format import timestamp_field, value_field
from features.online.on_demand import Transformation
from features.online.values import (
    TYPES,
    Check,
    FeatureValue,
    GarbageError,
    decode_timestamp,
    decode_value,
)

Outcome = Literal["hit", "partial", "missing", "stale", "timeout", "down"]
Reason = Literal[
    "missing", "absent", "null", "stale", "wrong_type", "timeout", "down", "not_computed"
]
ViewState = Literal["fresh", "stale", "missing"]


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One feature: its type (a key of ``values.TYPES``), and what stands in for it."""

    name: str
    type: str = "string"
    default: FeatureValue = None


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """One feature view. Values older than ``freshness_s`` are not used; None: any age will do.

    ``optional``: entities may be without it; then its absence is no shortcoming of a row.
    """

    name: str
    features: tuple[FeatureSpec, ...]
    freshness_s: float | None = None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """Views that are read together. Feature names are unique among them.

    An entity without fresh values in ``long_tail_view`` is long-tail; None: none is. ``on_demand``
    is computed from what was read, in this order; each may use what those before it computed.
    """

    name: str
    views: tuple[ViewSpec, ...]
    long_tail_view: str | None = None
    on_demand: tuple[Transformation, ...] = ()

    def columns(self) -> list[tuple[str, str, FeatureValue]]:
        """Name, type and default of every feature, those that are computed last."""
        read = [(f.name, f.type, f.default) for view in self.views for f in view.features]
        made = [(f.name, f.type, f.default) for each in self.on_demand for f in each.features]
        return read + made


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """What is known about an entity. ``values`` has every feature of the service.

    ``reasons`` says why a feature has its default. ``written_s`` is the event time of the oldest
    view that was found, ``changes_at_s`` the time at which the first fresh view becomes stale;
    both in seconds since the epoch.
    """

    outcome: Outcome
    values: Mapping[str, FeatureValue]
    reasons: Mapping[str, Reason] = field(default_factory=dict)
    views: Mapping[str, ViewState] = field(default_factory=dict)
    written_s: float | None = None
    long_tail: bool = False
    changes_at_s: float = float("inf")

    def age_s(self, now_s: float) -> float | None:
        """Age of the oldest view that was found."""
        return None if self.written_s is None else max(0.0, now_s - self.written_s)


@dataclass(frozen=True, slots=True)
class _View:
    spec: ViewSpec
    columns: tuple[tuple[str, Check, FeatureValue], ...]


class ServicePlan:
    """A service, ready to be read.

    Raises:
        ValueError: two features of one name, no feature, or an unknown type or view.
    """

    def __init__(self, spec: ServiceSpec) -> None:
        _require_sound(spec)
        self.spec = spec
        self._views = tuple(
            _View(view, tuple((f.name, TYPES[f.type], f.default) for f in view.features))
            for view in spec.views
        )
        self._defaults = {name: default for name, _, default in spec.columns()}
        names = [
            name
            for view in spec.views
            for name in (
                timestamp_field(view.name),
                *(value_field(view.name, f.name) for f in view.features),
            )
        ]
        self.n_fields = len(names)
        self.command = _command_head(names), _command_tail(names)
        """``HMGET`` as bytes, before and after the key's own part."""

    def without(self, why: Literal["missing", "timeout", "down", "wrong_type"]) -> FeatureRow:
        """All defaults: the entity has nothing, or the store gave nothing that can be used."""
        missing = why == "missing"
        return FeatureRow(
            "partial" if why == "wrong_type" else why,
            self._defaults,
            dict.fromkeys(self._defaults, why),
            {view.name: "missing" for view in self.spec.views} if missing else {},
            long_tail=missing and self.spec.long_tail_view is not None,
        )

    def read(self, reply: Sequence[bytes | None], now_s: float) -> FeatureRow:
        """The row of a reply to :attr:`command`, at ``now_s`` (seconds since the epoch).

        Raises:
            GarbageError: the reply has another length than was asked for.
        """
        if len(reply) != self.n_fields:
            raise GarbageError(f"{self.n_fields} fields were asked for, {len(reply)} came")
        if reply.count(None) == self.n_fields:
            return self.without("missing")
        row = _RowBuilder(now_s)
        at = 0
        for view in self._views:
            end = at + 1 + len(view.columns)
            row.add(view, reply[at], reply[at + 1 : end])
            at = end
        for each in self.spec.on_demand:
            row.compute(each)
        return row.build(self.spec.long_tail_view)


class _RowBuilder:
    """Collects views into a row."""

    def __init__(self, now_s: float) -> None:
        self._now_s = now_s
        self._values: dict[str, FeatureValue] = {}
        self._reasons: dict[str, Reason] = {}
        self._views: dict[str, ViewState] = {}
        self._oldest_s: float | None = None
        self._short = False
        self._changes_at_s = float("inf")

    def add(self, view: _View, timestamp: bytes | None, cells: Sequence[bytes | None]) -> None:
        state = self._state(view.spec, timestamp)
        self._views[view.spec.name] = state
        if state != "fresh":
            self._short = self._short or not view.spec.optional
            for name, _, default in view.columns:
                self._values[name] = default
                self._reasons[name] = state
            return
        for (name, check, default), cell in zip(view.columns, cells, strict=True):
            if cell is None:
                self._default(name, default, "absent")
                continue
            try:
                value = decode_value(cell)
            except GarbageError:
                self._default(name, default, "wrong_type")
                continue
            if value is None:
                self._values[name], self._reasons[name] = default, "null"
            elif check(value):
                self._values[name] = value
            else:
                self._default(name, default, "wrong_type")

    def compute(self, transformation: Transformation) -> None:
        made = transformation.apply(self._values)
        for each in transformation.features:
            if each.name not in made:
                self._default(each.name, each.default, "not_computed")
            elif made[each.name] is None:
                self._values[each.name], self._reasons[each.name] = each.default, "null"
            else:
                self._values[each.name] = made[each.name]

    def _default(self, name: str, default: FeatureValue, reason: Reason) -> None:
        self._values[name], self._reasons[name], self._short = default, reason, True

    def _state(self, view: ViewSpec, timestamp: bytes | None) -> ViewState:
        if timestamp is None:
            return "missing"
        try:
            written_s = decode_timestamp(timestamp)
        except GarbageError:
            # Of unknown age: with a limit on the age it cannot be used.
            return "fresh" if view.freshness_s is None else "stale"
        if self._oldest_s is None or written_s < self._oldest_s:
            self._oldest_s = written_s
        if view.freshness_s is None:
            return "fresh"
        expires_s = written_s + view.freshness_s
        if expires_s < self._now_s:
            return "stale"
        self._changes_at_s = min(self._changes_at_s, expires_s)
        return "fresh"

    def build(self, long_tail_view: str | None) -> FeatureRow:
        states = self._views.values()
        outcome: Outcome = "hit"
        if "stale" in states:
            outcome = "stale"
        elif self._short:
            outcome = "partial"
        return FeatureRow(
            outcome,
            self._values,
            self._reasons,
            self._views,
            self._oldest_s,
            long_tail_view is not None and self._views[long_tail_view] != "fresh",
            self._changes_at_s,
        )


def _require_sound(spec: ServiceSpec) -> None:
    names = [name for name, _, _ in spec.columns()]
    if not names:
        raise ValueError("a service needs at least one feature")
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise ValueError(f"the feature {twice!r} is there twice")
    if unknown := next((kind for _, kind, _ in spec.columns() if kind not in TYPES), ""):
        raise ValueError(f"no feature type {unknown!r}; known: {', '.join(TYPES)}")
    views = [view.name for view in spec.views]
    if spec.long_tail_view is not None and spec.long_tail_view not in views:
        raise ValueError(f"long_tail_view: no view named {spec.long_tail_view!r}")


def _command_head(names: Sequence[bytes]) -> bytes:
    return b"*%d\r\n$5\r\nHMGET\r\n" % (len(names) + 2)


def _command_tail(names: Sequence[bytes]) -> bytes:
    return b"".join(b"$%d\r\n%b\r\n" % (len(name), name) for name in names)
