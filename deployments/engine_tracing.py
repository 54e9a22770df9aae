"""vLLM's own spans: what an engine has to be told so that it makes them.

The gateway decides which requests are sampled, and tells replicas of those alone
(:attr:`deployments.wire.Submit.trace`). vLLM would begin a trace of its own for each of the others,
unless OpenTelemetry's sampler keeps nothing without a sampled parent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weir.settings.tracing import TracingSettings


@dataclass(frozen=True, slots=True)
class EngineTracing:
    """``arguments``: of the engine; ``environment``: of the replica's process."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def engine_tracing(settings: TracingSettings) -> EngineTracing:
    """For the engines of these settings; nothing where they make no spans."""
    endpoint = settings.engine_endpoint
    if endpoint is None:
        return EngineTracing()
    return EngineTracing(
        {"otlp_traces_endpoint": endpoint},
        {
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": settings.protocol,
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
            "OTEL_SERVICE_NAME": f"{settings.service_name}-engine",
        },
    )


def trace_headers(trace: str | None) -> dict[str, Mapping[str, str]]:
    """The argument of vLLM's client for a request of that ``traceparent``; none without one."""
    return {} if trace is None else {"trace_headers": {"traceparent": trace}}
