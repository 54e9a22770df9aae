"""Recording rules: the share of bad requests per tenant, class and objective over several windows.

All tenants and classes share the rules, so their number does not grow with either. What is recorded
per tenant, class and objective is ten series: two rates, six shares of bad requests, the share over
the whole window and the budget that is left.

Longer windows are made of the five-minute rates, each weighted by its requests: a quarter of an
hour without traffic weighs nothing. The two longest ones take one of five rates, so that a month of
a thousand tenants is some ten million samples each five minutes and not a hundred.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from weir.settings import Settings
from weir.settings.slo import Objective
from weir.slo.alerts import duration

EVERY_S = 60
SLOW_EVERY_S = 300
#: Windows made of every rate, and of one of five.
WINDOWS_S = (1800, 3600, 21_600)
SLOW_WINDOWS_S = (259_200,)
ERRORS, REQUESTS = "weir:slo_errors:rate5m", "weir:slo_requests:rate5m"
OBJECTIVE = "weir:slo_objective:ratio"
BUDGET_LEFT = "weir:slo_budget_left:ratio"
WINDOW_RATIO = "weir:slo_error_ratio:window"
_BY = "tenant, priority, slo"


@dataclass(frozen=True, slots=True)
class Target:
    """Which share of a class's requests is to be good. ``limit_ms``: of latencies."""

    objective: Objective
    priority: str
    share: float
    limit_ms: float | None = None


def targets(settings: Settings) -> list[Target]:
    """What the settings aim at: latencies of classes that have a limit, quality where a model has a
    student. The class without a name: requests that failed before their class was known."""
    slo, found = settings.slo, []
    for each in settings.admission.classes:
        limits: dict[Objective, float | None] = {
            "ttft": each.ttft_slo_ms,
            "tpot": each.tpot_slo_ms,
        }
        for objective, limit_ms in limits.items():
            if limit_ms is not None:
                share = slo.share(objective, each.name)
                found.append(Target(objective, each.name, share, limit_ms))
        found.append(Target("availability", each.name, slo.share("availability", each.name)))
        if any(model.fallback for model in settings.models):
            found.append(Target("quality", each.name, slo.share("quality", each.name)))
    return [*found, Target("availability", "", slo.availability)]


def error_ratio(window_s: int) -> str:
    """The recorded share of bad requests in a window."""
    return f"weir:slo_error_ratio:{duration(window_s)}"


def requests_in(window_s: int, objective: Objective) -> str:
    """How many requests an objective had in a window."""
    selected = f'{REQUESTS}{{slo="{objective}"}}'
    if window_s in SLOW_WINDOWS_S:
        return f"{SLOW_EVERY_S} * sum_over_time({selected}[{_slow(window_s)}])"
    return f"{EVERY_S} * sum_over_time({selected}[{duration(window_s)}])"


def recording_groups(settings: Settings) -> Iterator[dict[str, Any]]:
    """Prometheus' groups of rules."""
    window_s = settings.slo.window_days * 86_400
    yield _group(
        "weir-slo",
        EVERY_S,
        [
            *(_objective(target) for target in targets(settings)),
            _record(
                ERRORS, f'sum by ({_BY}) (rate(weir_slo_requests_total{{verdict="missed"}}[5m]))'
            ),
            _record(REQUESTS, f"sum by ({_BY}) (rate(weir_slo_requests_total[5m]))"),
            _record(error_ratio(300), f"{ERRORS} / ({REQUESTS} > 0)"),
            *(_record(error_ratio(each), _ratio(duration(each))) for each in WINDOWS_S),
        ],
    )
    left = f"1 - {WINDOW_RATIO} / on (slo, priority) group_left () (1 - {OBJECTIVE})"
    yield _group(
        "weir-slo-budget",
        SLOW_EVERY_S,
        [
            *(_record(error_ratio(each), _ratio(_slow(each))) for each in SLOW_WINDOWS_S),
            _record(WINDOW_RATIO, _ratio(_slow(window_s))),
            _record(BUDGET_LEFT, left),
        ],
    )


def _objective(target: Target) -> dict[str, Any]:
    labels: dict[str, str] = {"slo": target.objective}
    if target.priority:
        labels["priority"] = target.priority
    return {**_record(OBJECTIVE, f"vector({target.share})"), "labels": labels}


def _ratio(window: str) -> str:
    return f"sum_over_time({ERRORS}[{window}]) / (sum_over_time({REQUESTS}[{window}]) > 0)"


def _slow(window_s: int) -> str:
    return f"{duration(window_s)}:{duration(SLOW_EVERY_S)}"


def _record(name: str, expression: str) -> dict[str, Any]:
    return {"record": name, "expr": expression}


def _group(name: str, every_s: int, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "interval": duration(every_s), "rules": rules}
