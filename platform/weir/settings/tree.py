"""The one settings tree. Unknown keys are refused; every field has its unit in its name.

Objects are frozen: a reload builds a new tree and replaces the old one whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from weir.settings.admin import AdminSettings
from weir.settings.admission import AdmissionSettings
from weir.settings.autoscaling import AutoscalingSettings, ScalingSettings
from weir.settings.batches import BatchesSettings, FilesSettings
from weir.settings.database import DatabaseSettings
from weir.settings.engine import EngineSettings, ParallelSettings
from weir.settings.fallback import (
    FallbackSettings,
    RegistrySettings,
)
from weir.settings.features import FeaturesSettings
from weir.settings.ledger import LedgerSettings
from weir.settings.media import MediaOption, OptionBound
from weir.settings.money import AccountsSettings, PriceSettings, PricesSettings
from weir.settings.parsers import with_parsers
from weir.settings.pools import PoolSettings, hands_off, pool_findings, pooled
from weir.settings.references import Known, references
from weir.settings.responses import ResponsesSettings
from weir.settings.routing import RoutingSettings
from weir.settings.section import Finding, Section, refuse
from weir.settings.server import CorsSettings, MetricsSettings, Port, RefusalSettings
from weir.settings.slo import SloSettings
from weir.settings.speculative import SpeculativeSettings
from weir.settings.tenants import ModelName, TenantId, TenantSettings
from weir.settings.tracing import TracingSettings

AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class ServerSettings(Section):
    """Where clients connect, and what a request may cost before it is understood.

    ``early_headers_s``: a stream that has no output by then is opened all the same (null: never).
    ``max_body_bytes`` holds for a compressed body before and after it is decompressed.
    ``unknown_fields``: fields of a body that nobody knows are ignored and named in a header of the
    answer, or refused. ``max_streams_per_request``: prompts times choices.
    ``max_connections``: open at a time; ``max_connections_per_source``: of them, from one address.
    """

    host: str = "127.0.0.1"
    port: Port = 8000
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1024)
    request_timeout_s: float = Field(600.0, gt=0)
    early_headers_s: float | None = Field(20.0, gt=0)
    drain_timeout_s: float = Field(60.0, gt=0)
    unknown_fields: Literal["ignore", "refuse"] = "ignore"
    max_streams_per_request: int = Field(128, ge=1, le=2048)
    max_connections: int = Field(8192, ge=1)
    max_connections_per_source: int = Field(6144, ge=1)
    refusals: RefusalSettings = RefusalSettings()
    cors: CorsSettings = CorsSettings()
    metrics: MetricsSettings = MetricsSettings()
    admin: AdminSettings = AdminSettings()

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        taken = {self.port: "the clients"}
        for name, port in (("metrics", self.metrics.port), ("admin", self.admin.port)):
            if port in taken:
                raise ValueError(f"{name}.port is the port of {taken[port]}")
            if port is not None:
                taken[port] = name
        return self


class GatewaySettings(Section):
    """The gateway deployment.

    Beside a single replica, ``standbys`` more are up and take over when it fails; several replicas
    share the requests and take over from each other. ``dispatch_attempts``: replicas that may fail
    on a request, or get stuck under it, one after the other without any output (three times as many
    that are lost whole). ``resume_wait_s``: so long a request whose replica was lost waits for
    another to come. ``metrics_port``: each gateway answers ``/metrics``, ``/ready`` and ``/health``
    there too; for gateways that have a machine, or a pod, each.
    """

    replicas: int = Field(1, ge=1)
    standbys: int = Field(1, ge=0)
    num_cpus: float = Field(0.0, ge=0)
    metrics_port: Port | None = None
    dispatch_attempts: int = Field(3, ge=1, le=10)
    resume_wait_s: float = Field(30.0, ge=0)

    @property
    def processes(self) -> int:
        """Gateways that are up."""
        return self.replicas + (self.standbys if self.replicas == 1 else 0)


class RedisSettings(Section):
    """``embedded`` starts a redis-server of our own; ``external`` uses ``url``.

    A password belongs into the environment variable ``WEIR_REDIS_URL``, which wins over ``url``.
    """

    mode: Literal["embedded", "external"] = "embedded"
    url: str | None = None
    port: Port = 6390

    @model_validator(mode="after")
    def _url_goes_with_external(self) -> Self:
        if self.mode == "embedded" and self.url is not None:
            raise ValueError("url is for mode: external; the embedded server has its own address")
        return self


class PromptSettings(Section):
    """How a model's prompts are made of what clients send.

    ``special_tokens``: the text of a control token (``<|im_start|>``) in a conversation is
    ``text``, so that only the chat template can begin a turn; or the token itself, as in ``vllm``.
    ``media_options``: what clients may say of how images, audio and video are read, by its path in
    the body (``mm_processor_kwargs.max_pixels``).
    """

    special_tokens: Literal["text", "vllm"] = "text"
    media_options: dict[MediaOption, OptionBound] = Field(default_factory=dict)


class AdapterSettings(Section):
    """A LoRA adapter of a model, asked for as ``MODEL:NAME`` or by one of its ``aliases``.

    ``source``: a folder in PEFT's format, or ``registry:NAME@STAGE``. ``tenants``: who may use it;
    empty means all who may use the model. ``price``: the bill's, where it is not the model's.
    """

    name: AdapterName
    source: str = Field(min_length=1)
    tenants: tuple[TenantId, ...] = ()
    aliases: tuple[ModelName, ...] = ()
    price: PriceSettings | None = None


class ModelSettings(Section):
    """One served model. ``source``: ``builtin:NAME``, a directory, or a Hugging Face id.

    ``adapter_slots``: LoRA adapters that a replica holds at a time. ``on_cold_adapter``: what
    becomes of a request whose adapter is in no slot while all slots are in use: it waits, is
    answered by the model without the adapter, or is refused (503).
    """

    name: ModelName
    source: str = Field(min_length=1)
    replicas: int = Field(1, ge=0)
    engine: EngineSettings = EngineSettings()
    parallel: ParallelSettings = ParallelSettings()
    accelerator: str | None = None
    num_cpus: float = Field(1.0, ge=0)
    price: PriceSettings = PriceSettings()
    prompts: PromptSettings = PromptSettings()
    routing: RoutingSettings = RoutingSettings()
    speculative: SpeculativeSettings = SpeculativeSettings()
    drain_timeout_s: float = Field(60.0, gt=0)
    autoscaling: AutoscalingSettings | None = None
    fallback: FallbackSettings | None = None
    adapters: tuple[AdapterSettings, ...] = ()
    adapter_slots: int = Field(8, ge=1, le=256)
    on_cold_adapter: Literal["wait", "base", "refuse"] = "wait"
    pools: tuple[PoolSettings, ...] = ()

    @model_validator(mode="after")
    def _pools_fit(self) -> Self:
        alone = self.replicas != 1 or self.autoscaling is not None
        refuse(
            (
                *pool_findings(self.pools, alone, self.routing.disaggregation.pairs_of_mixed),
                *self._engine_findings(hands_off=False),
                *self._in_pools(),
            )
        )
        return self

    def _in_pools(self) -> Iterator[Finding]:
        own = set(self._engine_findings(hands_off=False))
        handing = hands_off(self.pools, self.routing.disaggregation.pairs_of_mixed)
        for number, pool in enumerate(self.pools):
            for finding in self.of_pool(pool)._engine_findings(handing):
                if finding not in own:
                    yield finding.below("pools", number)

    def _engine_findings(self, hands_off: bool) -> Iterator[Finding]:
        yield from self.parallel.findings(self.accelerator, self.engine.mode)
        yield from self.engine.findings(self.parallel, hands_off)

    def of_pool(self, pool: PoolSettings) -> ModelSettings:
        """The model as the replicas of one of its pools serve it."""
        return self.model_copy(update={**pooled(pool, self.engine, self.price), "pools": ()})

    @property
    def engine_args(self) -> dict[str, Any]:
        """``engine.args``, with the parsers of the model's family where they name none."""
        if self.engine.mode == "stub":
            return dict(self.engine.args)
        return with_parsers(self.source, self.engine.args)


class LogSettings(Section):
    """``json`` for machines, ``text`` for people."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class RaySettings(Section):
    """The Ray cluster: ``local`` starts one; anything else is an address to join.

    ``pool_labels``: each node of the cluster carries Ray's label ``weir/pool`` with the pool that
    it is for, and everything runs only on nodes of its own.
    """

    address: str = "local"
    pool_labels: bool = False
    num_cpus: int | None = Field(None, ge=1)
    object_store_memory_bytes: int = Field(100 * 1024 * 1024, ge=80 * 1024 * 1024)
    dashboard: bool = False


class Settings(Section):
    """Everything weir can be told."""

    server: ServerSettings = ServerSettings()
    gateway: GatewaySettings = GatewaySettings()
    redis: RedisSettings = RedisSettings()
    ray: RaySettings = RaySettings()
    models: tuple[ModelSettings, ...] = Field(min_length=1)
    registry: RegistrySettings = RegistrySettings()
    database: DatabaseSettings = DatabaseSettings()
    admission: AdmissionSettings = Field(default_factory=AdmissionSettings)
    slo: SloSettings = SloSettings()
    autoscaling: ScalingSettings = ScalingSettings()
    ledger: LedgerSettings = LedgerSettings()
    features: FeaturesSettings = FeaturesSettings()
    responses: ResponsesSettings = ResponsesSettings()
    files: FilesSettings = FilesSettings()
    batches: BatchesSettings = BatchesSettings()
    tenants: tuple[TenantSettings, ...] = ()
    accounts: AccountsSettings = AccountsSettings()
    prices: PricesSettings = PricesSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()

    @model_validator(mode="after")
    def _names_stand_for_something(self, info: ValidationInfo) -> Self:
        known = info.context if isinstance(info.context, Known) else Known()
        refuse(references(self, known))
        return self

    def model(self, name: str) -> ModelSettings | None:
        """The model of that name, if it is served."""
        return next((m for m in self.models if m.name == name), None)
