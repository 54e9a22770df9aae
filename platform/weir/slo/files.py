"""The rules as files: plain ones for Prometheus, or an object for its operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

import yaml

from weir.settings import Settings
from weir.slo.alerts import Alert
from weir.slo.burn import burn_alerts
from weir.slo.platform import PLATFORM_ALERTS
from weir.slo.recording import recording_groups

#: ``prometheus``: a file for ``rule_files``. ``operator``: a PrometheusRule of
#: monitoring.coreos.com/v1.
Format = Literal["prometheus", "operator"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
RUNBOOKS: Final = "docs/runbooks/"


def groups(settings: Settings, runbooks: str = RUNBOOKS) -> list[dict[str, Any]]:
    """Everything that the settings come to."""
    return [
        *recording_groups(settings),
        _alerts("weir-slo-alerts", list(burn_alerts(settings.slo)), runbooks),
        _alerts("weir-platform-alerts", PLATFORM_ALERTS, runbooks),
    ]


def render(settings: Settings, form: Format, *, runbooks: str = RUNBOOKS, head: str = "") -> str:
    """YAML. ``runbooks``: where the alerts' pages are; ``head``: a comment at the top."""
    rules: Mapping[str, Any] = {"groups": groups(settings, runbooks)}
    if form == "operator":
        rules = {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "weir", "labels": {"app.kubernetes.io/name": "weir"}},
            "spec": rules,
        }
    text = yaml.safe_dump(rules, sort_keys=False, width=100, allow_unicode=True)
    return f"# {head}\n{text}" if head else text


def _alerts(name: str, alerts: Sequence[Alert], runbooks: str) -> dict[str, Any]:
    return {"name": name, "interval": "1m", "rules": [alert.rule(runbooks) for alert in alerts]}
