"""Settings of tracing: which requests' traces are kept, and where they go."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from weir.settings.section import Section

#: Why a trace is kept whatever the ratio says.
Kept = Literal["failed", "slow", "moved", "spilled"]


class TracingSettings(Section):
    """Off unless there is somewhere to put traces: ``endpoint`` (a collector that speaks OTLP by
    ``protocol``) or ``recent`` (so many kept traces in the memory of each gateway, for ``weir
    trace``).

    ``sample_ratio``: the share of requests that is kept whatever becomes of them; ``always``: which
    others are. ``slow_s``: a request that takes longer is slow, as one is whose first token comes
    later than its class allows (null: only that). ``parent``: what a client's ``traceparent`` is
    good for: its sampling is followed, its trace only joined, or it is ignored.
    ``engine_spans``: vLLM's own spans of sampled requests, sent to the same collector by the
    replicas. ``queue_spans``: so many wait for the collector in a gateway; more are dropped, and
    counted. ``content_max_chars``: of prompts and answers of tenants with ``trace_content``.
    """

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s/]+", max_length=2048)] | None = None
    protocol: Literal["grpc", "http/protobuf"] = "grpc"
    service_name: str = Field("weir", min_length=1, max_length=255)
    sample_ratio: float = Field(0.01, ge=0, le=1)
    always: tuple[Kept, ...] = ("failed", "slow", "moved", "spilled")
    slow_s: float | None = Field(30.0, gt=0)
    parent: Literal["follow", "join", "ignore"] = "follow"
    recent: int = Field(0, ge=0, le=100_000)
    engine_spans: bool = True
    queue_spans: int = Field(20_000, ge=1000)
    export_timeout_s: float = Field(10.0, gt=0)
    content_max_chars: int = Field(16_384, ge=1)

    @model_validator(mode="after")
    def _path_goes_with_http(self) -> Self:
        if self.endpoint is None or self.protocol == "grpc":
            return self
        if not self.endpoint.partition("://")[2].partition("/")[2]:
            raise ValueError("endpoint: expected a path for http/protobuf, as in /v1/traces")
        return self

    @property
    def enabled(self) -> bool:
        """Whether requests are traced at all."""
        return self.endpoint is not None or self.recent > 0

    @property
    def engine_endpoint(self) -> str | None:
        """Where engines send their spans; None: they make none."""
        return self.endpoint if self.engine_spans else None
