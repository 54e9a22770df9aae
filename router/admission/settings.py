"""Admission's settings: classes, bounds, fairness weights. Plain frozen data, checked once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import router.admission.limits  # noqa: F401 - registers the limits
from router.admission.limit import Limit, build_limits
from router.admission.share import FULL_SHARE, Share
from weir.errors import ConfigError

MIB = 1 << 20
MAX_CLASSES = 512
Order = Literal["fifo", "deadline", "short-first"]
OnHopeless = Literal["shed", "last"]
_T = TypeVar("_T")


def _check(ok: bool, path: str, expected: str) -> None:
    if not ok:
        raise ConfigError(f"{path}: expected {expected}", param=path)


@dataclass(frozen=True, slots=True)
class ClassSettings:
    """One priority class.

    A lower ``urgency`` is served strictly first (0: the most urgent); classes of the same
    ``urgency`` share by ``weight``
    (weighted tokens). ``ttft_slo_ms``: first token due that long after arrival;
    ``tpot_slo_ms``: mean time per later token (read by the decision whether to disaggregate);
    ``deadline_s``: whole answer due that long after arrival, unless the request brings its own
    deadline. ``on_hopeless``: what becomes of a request that can no longer be in time. ``within``
    orders one tenant's own requests; with ``short-first``, each 1,000 prompt tokens that no
    replica has cached count as ``short_first_s_per_1k_tokens`` seconds of later arrival, so a
    long prompt is overtaken for a bounded time only. Worth, 4.0 over 0.25, goodput at 1.5 and 2
    times saturation: + 6 and + 12 % (Mooncake conversations), 0 and + 5 % (WEKA agent sessions),
    − 1 % at 1.5 (Mooncake synthetic); nothing up to saturation (simulated, 8 replicas, 2 seeds that
    are not reported). ``share`` is how far the class may fill a
    replica (all classes together counted) while a more urgent class is active: what it
    leaves is head-room for that one. For the most urgent class it always holds.
    """

    name: str
    urgency: int
    weight: float = 1.0
    max_requests: int = 4096
    max_bytes: int = 256 * MIB
    ttft_slo_ms: float | None = None
    deadline_s: float | None = None
    max_wait_s: float | None = 60.0
    on_hopeless: OnHopeless = "last"
    within: Order = "short-first"
    short_first_s_per_1k_tokens: float = 4.0
    share: Share = FULL_SHARE
    tpot_slo_ms: float | None = None

    def __post_init__(self) -> None:
        path = f"admission.classes.{self.name}"
        _check(bool(self.name), "admission.classes", "a name for every class")
        _check(self.urgency >= 0, f"{path}.urgency", "an integer of at least 0")
        _check(_positive(self.weight), f"{path}.weight", "a number above 0")
        _check(self.max_requests >= 1, f"{path}.max_requests", "an integer of at least 1")
        _check(self.max_bytes >= 1, f"{path}.max_bytes", "an integer of at least 1")
        for name in ("ttft_slo_ms", "tpot_slo_ms", "deadline_s", "max_wait_s"):
            value = getattr(self, name)
            _check(value is None or _positive(value), f"{path}.{name}", "a number above 0 or null")
        _check(self.on_hopeless in ("shed", "last"), f"{path}.on_hopeless", "shed or last")
        known = ("fifo", "deadline", "short-first")
        _check(self.within in known, f"{path}.within", " or ".join(known))
        slower = self.short_first_s_per_1k_tokens
        _check(slower >= 0, f"{path}.short_first_s_per_1k_tokens", "a number of at least 0")


def default_classes() -> tuple[ClassSettings, ...]:
    """interactive before standard before batch.

    Batch's share: two tenths of the places, because while urgent sequences decode, every other one
    that does makes their steps longer. Its prompts may fill an engine, for they give way to urgent
    ones between two steps; without ``engine.yielding``, a ``prefill`` share of 0.25 keeps an engine
    free of more than one (docs/admission.md has the figures).
    """
    return (
        ClassSettings("interactive", 0, ttft_slo_ms=2000.0, max_wait_s=30.0),
        ClassSettings(
            "standard", 1, ttft_slo_ms=10_000.0, max_wait_s=120.0, share=Share(0.5, 0.75, 0.95)
        ),
        ClassSettings(
            "batch",
            2,
            max_requests=65_536,
            max_bytes=1024 * MIB,
            max_wait_s=3600.0,
            share=Share(1.0, 0.2, 0.85),
        ),
    )


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """The whole of ``admission:``.

    ``input_weight`` and ``output_weight`` are VTC's w_p and w_q (Sheng et al., OSDI 2024, use 1
    and 2); ``cached_weight`` is charged for prompt tokens that a replica had cached.
    ``tenant_share_of_free``: a tenant may hold at most this many times the class queue's free
    space (dynamic thresholds: Choudhury and Hahne, IEEE/ACM ToN 1998), so that one tenant never
    fills a queue. Ageing: a class passed over for ``ageing_after_s`` and ``ageing_every``
    dispatches runs one request next. ``limits``: name of a registered limit → its parameters, where
    they are not the default ones (None: that limit does not apply); ``built_limits`` are they.
    """

    enabled: bool = True
    classes: tuple[ClassSettings, ...] = field(default_factory=default_classes)
    input_weight: float = 1.0
    output_weight: float = 2.0
    cached_weight: float = 0.1
    tenant_weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    default_tenant_weight: float = 1.0
    tenant_share_of_free: float = 4.0
    ageing_after_s: float = 5.0
    ageing_every: int = 64
    min_retry_after_s: float = 1.0
    max_retry_after_s: float = 60.0
    drain_window_s: float = 10.0
    limits: Mapping[str, Mapping[str, Any] | None] = field(
        default_factory=lambda: MappingProxyType({})
    )
    #: The weight that a tenant has now; None: the settings' one.
    live_weight: Callable[[str], float | None] | None = field(
        default=None, repr=False, compare=False
    )
    built_limits: tuple[Limit, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [c.name for c in self.classes]
        _check(1 <= len(names) <= MAX_CLASSES, "admission.classes", "1 to 512 classes")
        _check(len(set(names)) == len(names), "admission.classes", "each name once")
        for name in ("input_weight", "output_weight", "default_tenant_weight", "drain_window_s"):
            _check(_positive(getattr(self, name)), f"admission.{name}", "a number above 0")
        cached_ok = 0 <= self.cached_weight <= self.input_weight
        _check(cached_ok, "admission.cached_weight", "a number from 0 to input_weight")
        for tenant, weight in self.tenant_weights.items():
            _check(_positive(weight), f"admission.tenant_weights.{tenant}", "a number above 0")
        share_ok = self.tenant_share_of_free >= 1
        _check(share_ok, "admission.tenant_share_of_free", "a number of at least 1")
        _check(self.ageing_after_s >= 0, "admission.ageing_after_s", "a number of at least 0")
        _check(self.ageing_every >= 1, "admission.ageing_every", "an integer of at least 1")
        retry_ok = 0 < self.min_retry_after_s <= self.max_retry_after_s
        _check(retry_ok, "admission.min_retry_after_s", "above 0, at most max_retry_after_s")
        object.__setattr__(self, "built_limits", build_limits(self.limits))

    def tenant_weight(self, tenant: str) -> float:
        """The tenant's fair share relative to the others of its class, as it is now."""
        live = self.live_weight(tenant) if self.live_weight is not None else None
        if live is not None:
            return live
        return self.tenant_weights.get(tenant, self.default_tenant_weight)


def parse_settings(data: Mapping[str, Any]) -> AdmissionSettings:
    """``admission:`` as read from YAML; ``classes`` is a mapping from name to class settings
    that replaces the default ones.

    Raises:
        ConfigError: unknown key or impossible value, naming the path.
    """
    given = dict(data)
    if "classes" in given:
        classes = _section(given["classes"], "admission.classes")
        given["classes"] = tuple(_parse_class(name, raw) for name, raw in classes.items())
    if "limits" in given:
        limits = _section(given["limits"], "admission.limits")
        given["limits"] = MappingProxyType({k: _limit(k, raw) for k, raw in limits.items()})
    if "tenant_weights" in given:
        weights = _section(given["tenant_weights"], "admission.tenant_weights")
        given["tenant_weights"] = MappingProxyType(dict(weights))
    return _build(AdmissionSettings, given, "admission")


def _parse_class(name: str, raw: object) -> ClassSettings:
    path = f"admission.classes.{name}"
    given = dict(_section(raw, path))
    _check("name" not in given, f"{path}.name", "the name as the key only")
    if "share" in given:
        given["share"] = _build(Share, given["share"], f"{path}.share")
    _check("urgency" in given, f"{path}.urgency", "an integer of at least 0")
    return _build(ClassSettings, {"name": name, **given}, path)


def _limit(name: str, raw: object) -> Mapping[str, Any] | None:
    return None if raw is None else _section(raw, f"admission.limits.{name}")


def _build(kind: type[_T], raw: object, path: str) -> _T:
    given = _section(raw, path)
    known = {f.name for f in fields(kind) if f.init and f.name != "live_weight"}  # type: ignore[arg-type]
    for key in given:
        _check(key in known, f"{path}.{key}", f"one of {', '.join(sorted(known))}")
    try:
        return kind(**given)
    except TypeError as error:
        raise ConfigError(f"{path}: a value has the wrong type ({error})", param=path) from None


def _section(raw: object, path: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{path}: expected a mapping", param=path)
    return raw


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0
