"""Puts together what takes traces to the collector of the settings."""

from __future__ import annotations

import os
import socket

from deployments.gateway.tracing.shipping import Encoder, Exporter, Shipper
from weir.metrics import GatewayMetrics
from weir.settings.tracing import TracingSettings


def build_shipper(
    settings: TracingSettings, metrics: GatewayMetrics, period_s: float = 1.0
) -> Shipper | None:
    """Started; None where the settings name no collector. ``period_s``: the longest that a trace
    waits to be sent."""
    if settings.endpoint is None:
        return None
    instance = f"{socket.gethostname()}-{os.getpid()}"

    def open_collector() -> tuple[Encoder, Exporter]:
        from deployments.gateway.tracing.otlp import OtlpEncoder, open_exporter, resource_of

        return OtlpEncoder(resource_of(settings, instance)), open_exporter(settings)

    shipper = Shipper(open_collector, metrics, settings.queue_spans, period_s)
    shipper.start()
    return shipper
