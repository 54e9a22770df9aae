"""Objectives as rules for Prometheus: recording rules, burn-rate alerts, alerts on the platform."""

from weir.slo.alerts import Alert
from weir.slo.burn import BURNS, Burn, burn_alerts
from weir.slo.files import FORMATS, Format, render
from weir.slo.platform import PLATFORM_ALERTS
from weir.slo.recording import Target, targets

__all__ = [
    "BURNS",
    "FORMATS",
    "PLATFORM_ALERTS",
    "Alert",
    "Burn",
    "Format",
    "Target",
    "burn_alerts",
    "render",
    "targets",
]
