"""OTLP: OpenTelemetry's messages, and its exporters, which bring TLS, headers and retries.

Imported where traces are sent only: gRPC and protobuf take a tenth of a second.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as OTLPGrpcExporter,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as OTLPHttpExporter,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.sdk.resources import Resource as SdkResource
from opentelemetry.sdk.trace.export import SpanExportResult

from deployments.gateway.tracing import names
from deployments.gateway.tracing.shipping import Exporter
from deployments.gateway.tracing.spans import KeptTrace, Span, Value
from weir import __version__
from weir.settings.tracing import TracingSettings

_KINDS = {
    "internal": OtlpSpan.SPAN_KIND_INTERNAL,
    "server": OtlpSpan.SPAN_KIND_SERVER,
    "client": OtlpSpan.SPAN_KIND_CLIENT,
}
_SAMPLED_FLAG = 1
_FIELDS: Mapping[type, str] = {
    str: "string_value",
    bool: "bool_value",
    int: "int_value",
    float: "double_value",
}


class OtlpEncoder:
    """Makes OTLP's message of kept traces. ``resource``: what is said of the process."""

    def __init__(self, resource: Mapping[str, Any]) -> None:
        self._resource = Resource()
        for name, value in resource.items():
            self._resource.attributes.add(key=name, value=_any(value))
        self._scope = InstrumentationScope(name="weir.gateway", version=__version__)

    def encode(self, traces: list[KeptTrace]) -> ExportTraceServiceRequest:
        """All spans of the traces, of one resource."""
        request = ExportTraceServiceRequest()
        own: ResourceSpans = request.resource_spans.add(resource=self._resource)
        scope: ScopeSpans = own.scope_spans.add(scope=self._scope, schema_url=names.SCHEMA_URL)
        for trace in traces:
            trace_id = bytes.fromhex(trace.trace_id)
            for span in trace.spans:
                _add(scope, trace_id, trace, span)
            time.sleep(0)  # lets the event loop have the interpreter
        return request


def _add(scope: ScopeSpans, trace_id: bytes, trace: KeptTrace, span: Span) -> None:
    made: OtlpSpan = scope.spans.add(
        trace_id=trace_id,
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        trace_state=trace.state,
        flags=_SAMPLED_FLAG,
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=int((span.start_s + trace.ahead_s) * 1e9),
        end_time_unix_nano=int((span.end_s + trace.ahead_s) * 1e9),
    )
    add = made.attributes.add
    for name, value in span.attributes.items():
        add(key=name, value=_any(value))
    if span.error:
        add(key=names.ERROR_TYPE, value=_any(span.error))
        made.status.code = Status.STATUS_CODE_ERROR


def _any(value: Value) -> dict[str, Any]:
    """The fields of an ``AnyValue``: given as a dictionary they are set in one call."""
    field = _FIELDS.get(type(value))
    if field is not None:
        return {field: value}
    if isinstance(value, str):  # of a kind of its own, as an enumeration's are
        return {"string_value": str(value)}
    assert not isinstance(value, int | float)
    return {"array_value": {"values": [_any(each) for each in value]}}


class _HttpExporter(OTLPHttpExporter):
    """Sends what is encoded already."""

    def export(self, request: Any) -> Any:
        return self._client.export(request.SerializeToString()).success


class _GrpcExporter(OTLPGrpcExporter):
    """Sends what is encoded already."""

    def export(self, request: Any) -> Any:
        return self._export(request) is SpanExportResult.SUCCESS

    def _translate_data(self, data: Any) -> Any:
        return data

    def _count_data(self, data: Any) -> int:
        return 0


def open_exporter(settings: TracingSettings) -> Exporter:
    """OpenTelemetry's exporter. Credentials come from its own environment variables, such as
    ``OTEL_EXPORTER_OTLP_HEADERS``."""
    assert settings.endpoint is not None
    if settings.protocol == "grpc":
        plain = settings.endpoint.startswith("http://")
        return _GrpcExporter(settings.endpoint, insecure=plain, timeout=settings.export_timeout_s)
    return _HttpExporter(settings.endpoint, timeout=settings.export_timeout_s)


def resource_of(settings: TracingSettings, instance: str) -> Mapping[str, Any]:
    """What is said of this gateway; ``OTEL_RESOURCE_ATTRIBUTES`` may say more."""
    own = {
        "service.name": settings.service_name,
        "service.version": __version__,
        "service.instance.id": instance,
    }
    return SdkResource.create(own).attributes
