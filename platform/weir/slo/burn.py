"""Multi-window, multi-burn-rate alerts: how fast an error budget is being spent.

The windows and the parts of the budget are those that the Site Reliability Workbook recommends
(Google, 2018, chapter 5, "Alerting on SLOs", table 5-8): a page when 2 % of the budget goes in an
hour or 5 % in six hours, a ticket when 10 % goes in three days. The short window, a twelfth of the
long one, ends an alert soon after its cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from weir.settings.slo import Objective, SloSettings
from weir.slo.alerts import Alert, Severity, duration
from weir.slo.recording import BUDGET_LEFT, OBJECTIVE, error_ratio, requests_in


@dataclass(frozen=True, slots=True)
class Burn:
    """``part``: of the budget, gone in ``long_s``. The same must hold over ``short_s``."""

    long_s: int
    short_s: int
    part: float
    severity: Severity

    def factor(self, window_days: int) -> float:
        """How many times faster than evenly over the window."""
        return round(self.part * window_days * 86_400 / self.long_s, 4)


BURNS = (
    Burn(3600, 300, 0.02, "page"),
    Burn(21_600, 1800, 0.05, "page"),
    Burn(259_200, 21_600, 0.1, "ticket"),
)

_NAMES: dict[Objective, tuple[str, str]] = {
    "ttft": ("WeirTtftBudgetBurning", "first tokens come too late"),
    "tpot": ("WeirTpotBudgetBurning", "tokens come too slowly"),
    "availability": ("WeirAvailabilityBudgetBurning", "requests fail"),
    "quality": ("WeirQualityBudgetBurning", "students answer instead of the models"),
}


def burn_alerts(slo: SloSettings) -> Iterator[Alert]:
    """Three for each objective; each of them is for every tenant and class."""
    for objective, (name, what) in _NAMES.items():
        for burn in BURNS:
            yield _alert(slo, objective, burn, name, what)


def _alert(slo: SloSettings, objective: Objective, burn: Burn, name: str, what: str) -> Alert:
    factor = burn.factor(slo.window_days)
    limit = f"on (slo, priority) group_left () ({factor:g} * (1 - {OBJECTIVE}))"
    selected = f'{{slo="{objective}"}}'
    expression = (
        f"{error_ratio(burn.long_s)}{selected} > {limit} and "
        f"{error_ratio(burn.short_s)}{selected} > {limit} and "
        f"{requests_in(burn.long_s, objective)} >= {slo.least_requests}"
    )
    long = duration(burn.long_s)
    left = f"{BUDGET_LEFT}{{tenant='{{{{ $labels.tenant }}}}',slo='{objective}'}}"
    return Alert(
        name,
        burn.severity,
        expression,
        f"{{{{ $labels.tenant }}}}, {{{{ $labels.priority }}}}: {what}.",
        f"In the last {long}, {{{{ $value | humanizePercentage }}}} of the requests of tenant "
        f"{{{{ $labels.tenant }}}} in class {{{{ $labels.priority }}}} missed the objective "
        f"{objective}: {burn.part:.0%} of the budget of {slo.window_days} days, or more, in that "
        f"time. What is left of it: {left}.",
        labels={"window": long},
    )
