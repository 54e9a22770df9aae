"""The ``admission`` section: who waits and who goes first when replicas are full.

Frozen dataclasses instead of sections, because the request path reads them and makes shares of its
own; pydantic checks them where they are read from YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    with_config,
)
from pydantic_core import CoreSchema, core_schema

from weir.settings.parts import named, parts_of
from weir.settings.section import Finding, refuse

MIB = 1 << 20
MAX_CLASSES = 512
Order = Literal["fifo", "deadline", "short-first"]
OnHopeless = Literal["shed", "last"]
Part = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
_STRICT = ConfigDict(extra="forbid")


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Share:
    """How far a class or a tenant may fill a replica.

    A part (0, 1] of each limit of a replica, everybody's work counted: trunk reservation, which
    leaves the rest free for more urgent classes. ``crowd_out``: a long prompt that is cached
    nowhere may push out prefixes that are in use.
    """

    prefill: Part = 1.0
    running: Part = 1.0
    kv: Part = 1.0
    crowd_out: bool = False

    def narrowed(self, other: Share) -> Share:
        """The smaller part of each."""
        return Share(
            min(self.prefill, other.prefill),
            min(self.running, other.running),
            min(self.kv, other.kv),
            self.crowd_out and other.crowd_out,
        )


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class ClassSettings:
    """One priority class.

    A lower ``urgency`` is served strictly first (0: the most urgent); classes of the same
    ``urgency`` share by ``weight``
    (weighted tokens). ``ttft_slo_ms``: first token due that long after arrival;
    ``tpot_slo_ms``: mean time per later token;
    ``max_output_tokens``: the most tokens of an answer, whatever is asked for;
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

    In YAML ``name`` is the key that the class stands by.
    """

    name: Annotated[str, Field(min_length=1)]
    urgency: Annotated[int, Field(ge=0)]
    weight: Positive = 1.0
    max_requests: Count = 4096
    max_bytes: Count = 256 * MIB
    ttft_slo_ms: Positive | None = None
    deadline_s: Positive | None = None
    max_wait_s: Positive | None = 60.0
    on_hopeless: OnHopeless = "last"
    within: Order = "short-first"
    short_first_s_per_1k_tokens: NotNegative = 4.0
    share: Share = field(default_factory=Share)
    tpot_slo_ms: Positive | None = None
    max_output_tokens: Count | None = None

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        made = handler(schema)
        whole = handler.resolve_ref_schema(made)
        whole["properties"].pop("name")
        whole["required"].remove("name")
        return made


class _ByName:
    """Classes are a mapping by name in YAML, and a tuple, in the same order, everywhere else."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        name = Annotated[str, Field(min_length=1)]
        sized = Annotated[
            dict[name, ClassSettings],
            Field(min_length=1, max_length=MAX_CLASSES),
        ]
        given = core_schema.no_info_before_validator_function(
            _with_names, handler.generate_schema(sized)
        )
        return core_schema.no_info_after_validator_function(
            lambda classes: tuple(classes.values()),
            given,
            serialization=core_schema.plain_serializer_function_ser_schema(_by_name),
        )


def _with_names(classes: Any) -> Any:
    if not isinstance(classes, Mapping):
        return classes
    refuse(
        Finding((str(name), "name"), "unknown key; a class is called as its key is")
        for name, each in classes.items()
        if isinstance(each, Mapping) and "name" in each
    )
    return {
        name: {**each, "name": name} if isinstance(each, Mapping) else each
        for name, each in classes.items()
    }


def _by_name(classes: tuple[ClassSettings, ...]) -> dict[str, dict[str, Any]]:
    return {
        each.name: {key: value for key, value in asdict(each).items() if key != "name"}
        for each in classes
    }


def default_classes() -> tuple[ClassSettings, ...]:
    """interactive before standard before batch.

    Batch's share: two tenths of the places, because while urgent sequences decode, every other one
    that does makes their steps longer. Its prompts may fill an engine, for they give way to urgent
    ones between two steps; without ``engine.yielding``, a ``prefill`` share of 0.25 keeps an engine
    free of more than one (docs/admission.md has the figures).
    """
    return (
        ClassSettings("interactive", 0, ttft_slo_ms=2000.0, max_wait_s=30.0, tpot_slo_ms=100.0),
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


def _registered(
    limits: dict[str, dict[str, Any] | None], info: ValidationInfo
) -> dict[str, dict[str, Any] | None]:
    if (parts := parts_of(info)) is not None:
        refuse(named(parts.limits, limits))
    return limits


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """The whole of ``admission:``.

    ``input_weight`` and ``output_weight`` are VTC's w_p and w_q (Sheng et al., OSDI 2024, use 1
    and 2); ``cached_weight`` is charged for prompt tokens that a replica had cached.
    ``tenant_share_of_free``: a tenant may hold at most this many times the class queue's free
    space (dynamic thresholds: Choudhury and Hahne, IEEE/ACM ToN 1998), so that one tenant never
    fills a queue. Ageing: a class passed over for ``ageing_after_s`` and ``ageing_every``
    dispatches runs one request next. ``limits``: name of a registered limit → its parameters, where
    they are not the default ones (None: that limit does not apply).
    """

    enabled: bool = True
    classes: Annotated[tuple[ClassSettings, ...], _ByName()] = field(
        default_factory=default_classes
    )
    input_weight: Positive = 1.0
    output_weight: Positive = 2.0
    cached_weight: NotNegative = 0.1
    tenant_weights: dict[str, Positive] = field(default_factory=dict)
    default_tenant_weight: Positive = 1.0
    tenant_share_of_free: Annotated[float, Field(ge=1)] = 4.0
    ageing_after_s: NotNegative = 5.0
    ageing_every: Count = 64
    min_retry_after_s: Positive = 1.0
    max_retry_after_s: Positive = 60.0
    drain_window_s: Positive = 10.0
    limits: Annotated[dict[str, dict[str, Any] | None], AfterValidator(_registered)] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        names = [c.name for c in self.classes]
        checks = (
            (len(set(names)) == len(names), "classes", "each name once"),
            (self.cached_weight <= self.input_weight, "cached_weight", "at most input_weight"),
            (
                self.min_retry_after_s <= self.max_retry_after_s,
                "min_retry_after_s",
                "at most max_retry_after_s",
            ),
        )
        refuse(Finding((key,), f"expected {expected}") for ok, key, expected in checks if not ok)

    def tenant_weight(self, tenant: str) -> float:
        """The tenant's fair share relative to the others of its class."""
        return self.tenant_weights.get(tenant, self.default_tenant_weight)
