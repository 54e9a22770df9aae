"""The rules as promtool judges them: every alert fires when it should, and is silent when not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import ValidationError

from tests.weir.slo.cases import CASES
from weir.cli.main import app
from weir.metrics import TIER_METRICS, GatewayMetrics
from weir.settings import Settings, load_settings
from weir.settings.slo import ClassObjectives, SloSettings
from weir.slo import BURNS, PLATFORM_ALERTS, Alert, burn_alerts, render, targets
from weir.testing.prometheus import installed, promtool

ROOT = Path(__file__).resolve().parents[3]
RUNBOOKS = ROOT / "docs" / "runbooks"
FILES = {
    "prometheus": ROOT / "k8s" / "rules" / "weir.rules.yaml",
    "operator": ROOT / "k8s" / "rules" / "operator" / "weir.yaml",
}
SLO, BUDGET, SLO_ALERTS = "weir-slo", "weir-slo-budget", "weir-slo-alerts"
PLATFORM = "weir-platform-alerts"
Judge = Callable[..., None]
needs_promtool = pytest.mark.skipif(
    not installed(), reason="Debian's package prometheus is not installed"
)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings("laptop", None)


@pytest.fixture(scope="module")
def alerts(settings: Settings) -> list[Alert]:
    return [*burn_alerts(settings.slo), *PLATFORM_ALERTS]


@pytest.fixture(scope="module")
def groups(settings: Settings) -> list[dict[str, Any]]:
    """All groups of rules, as they are in the file."""
    whole = yaml.safe_load(render(settings, "prometheus"))
    return list(whole["groups"])


@pytest.fixture
def judge(tmp_path: Path, groups: list[dict[str, Any]]) -> Judge:
    """Runs promtool's tests. ``named``: the groups that they need, because promtool evaluates
    whatever it is given, minute by minute."""

    def run(tests: list[dict[str, Any]], *named: str) -> None:
        rules = {"groups": [group for group in groups if group["name"] in named]}
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
        whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
        (tmp_path / "tests.yaml").write_text(yaml.safe_dump(whole))
        promtool("test", "rules", tmp_path / "tests.yaml")

    return run


def _test(series: Mapping[str, str], at: str, **fires: int) -> dict[str, Any]:
    """A test of promtool. ``fires``: by alert, how many fire."""
    return {
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "promql_expr_test": [_fires(f'alertname="{name}"', at, n) for name, n in fires.items()],
    }


def _fires(selected: str, at: str, count: int) -> dict[str, Any]:
    samples = [{"labels": "{}", "value": count}] if count else []
    expression = f'count(ALERTS{{alertstate="firing",{selected}}})'
    return {"expr": expression, "eval_time": at, "exp_samples": samples}


# -- alerts on the platform --------------------------------------------------------------------


def test_every_alert_on_the_platform_has_a_case() -> None:
    assert [case.alert for case in CASES] == [alert.name for alert in PLATFORM_ALERTS]


@needs_promtool
def test_every_alert_on_the_platform_fires_and_is_silent(judge: Judge) -> None:
    tests = []
    for case in CASES:
        tests.append(_test(case.firing, "1h", **{case.alert: 1}))
        tests.append(_test(case.silent, "1h", **{case.alert: 0}))
    judge(tests, PLATFORM)


@needs_promtool
def test_a_judge_that_finds_nothing_wrong_would_be_noticed(judge: Judge) -> None:
    for series, count in ((CASES[2].silent, 1), (CASES[2].firing, 0)):
        with pytest.raises(AssertionError, match="FAILED"):
            judge([_test(series, "1h", **{CASES[2].alert: count})], PLATFORM)


# -- burn-rate alerts --------------------------------------------------------------------------

_WHERE = 'tenant="{tenant}",model="m",gateway="a",priority="{priority}",slo="{slo}"'


def _slo_series(
    slo: str, priority: str, missed: str, met: str, tenant: str = "shop"
) -> dict[str, str]:
    where = _WHERE.format(slo=slo, priority=priority, tenant=tenant)
    name = "weir_slo_requests_total"
    return {f'{name}{{{where},verdict="missed"}}': missed, f'{name}{{{where},verdict="met"}}': met}


def _burning(share: float) -> tuple[str, str]:
    """A thousand requests a minute, of which so many are missed."""
    missed = round(1000 * share)
    return f"0+{missed}x110", f"0+{1000 - missed}x110"


@needs_promtool
@pytest.mark.parametrize("burn", BURNS, ids=lambda burn: f"{burn.long_s // 3600}h")
def test_budgets_that_burn_raise_alerts(burn: Any, judge: Judge, settings: Settings) -> None:
    """For each class and objective: at one and a half times the rate, or all requests, it fires; at
    half of it, it does not."""
    window, at = {3600: ("1h", "70m"), 21_600: ("6h", "100m"), 259_200: ("3d", "100m")}[burn.long_s]
    series, wanted = {}, []
    for target in targets(settings):
        limit = burn.factor(30) * (1 - target.share)
        name = f"Weir{target.objective.capitalize()}BudgetBurning"
        for tenant, share, count in (
            ("burning", min(1.0, 1.5 * limit), 1),
            ("quiet", 0.5 * limit, 0),
        ):
            missed, met = _burning(share)
            series |= _slo_series(target.objective, target.priority, missed, met, tenant)
            selected = f'alertname="{name}",window="{window}",tenant="{tenant}"'
            selected += f',priority="{target.priority}",severity="{burn.severity}"'
            wanted.append(_fires(selected, at, count))
    assert len(wanted) == 20
    judge([{**_test(series, at), "promql_expr_test": wanted}], SLO, BUDGET, SLO_ALERTS)


@needs_promtool
def test_an_alert_ends_soon_after_its_cause(judge: Judge) -> None:
    """The hour is still bad, the last five minutes are good."""
    bad = _slo_series("ttft", "interactive", "0+500x40 20000x20", "0+500x40 20000+1000x20")
    page = 'alertname="WeirTtftBudgetBurning",window="1h"'
    tests = [_fires(page, "40m", 1), _fires(page, "50m", 0)]
    judge([{**_test(bad, "1h"), "promql_expr_test": tests}], SLO, BUDGET, SLO_ALERTS)


@needs_promtool
def test_few_requests_raise_no_alert(judge: Judge) -> None:
    """Of ten requests in an hour all failed: that is below ``least_requests``."""
    few = _slo_series("availability", "standard", "0 0+1x10 10x49", "0x60")
    many = _slo_series("availability", "standard", "0 0+10x10 100x49", "0x60")
    page = 'alertname="WeirAvailabilityBudgetBurning",window="1h"'
    tests = [
        {**_test(few, "9m"), "promql_expr_test": [_fires(page, "9m", 0)]},
        {**_test(many, "9m"), "promql_expr_test": [_fires(page, "9m", 1)]},
    ]
    judge(tests, SLO, BUDGET, SLO_ALERTS)


@needs_promtool
def test_what_is_left_of_a_budget(judge: Judge) -> None:
    """Half of the budget is spent: five of a thousand first tokens came late, ten may. Four
    gateways and two models are one tenant's."""
    series: dict[str, str] = {}
    for gateway in "abcd":
        for model in "mn":
            where = _WHERE.format(slo="ttft", priority="interactive", tenant="shop")
            where = where.replace('gateway="a"', f'gateway="{gateway}"')
            where = where.replace('model="m"', f'model="{model}"')
            series[f'weir_slo_requests_total{{{where},verdict="missed"}}'] = "0+5x110"
            series[f'weir_slo_requests_total{{{where},verdict="met"}}'] = "0+995x110"
    at = {"eval_time": "100m"}
    labels = '{tenant="shop",priority="interactive",slo="ttft"}'
    wanted = [
        {
            **at,
            "expr": "round(weir:slo_budget_left:ratio, 0.001)",
            "exp_samples": [{"labels": labels, "value": 0.5}],
        },
        {
            **at,
            "expr": "round(weir:slo_requests:rate5m * 60)",
            "exp_samples": [{"labels": labels, "value": 8000}],
        },
    ]
    judge([{**_test(series, "100m"), "promql_expr_test": wanted}], SLO, BUDGET, SLO_ALERTS)


@needs_promtool
def test_traffic_weighs_in_long_windows(judge: Judge) -> None:
    """A bad minute of the night is no bad minute of the day: 10 of 10 requests failed first, then
    none of 990."""
    series = _slo_series("availability", "batch", "0+1x10 10x110", "0x11 0+9x109")
    expr = 'round(weir:slo_error_ratio:6h{slo="availability"}, 0.001)'
    labels = '{tenant="shop",priority="batch",slo="availability"}'
    wanted = {
        "expr": expr,
        "eval_time": "2h",
        "exp_samples": [{"labels": labels, "value": 0.01}],
    }
    judge([{**_test(series, "2h"), "promql_expr_test": [wanted]}], SLO, BUDGET, SLO_ALERTS)


# -- what the files say ------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["prometheus", "operator"])
def test_the_committed_files_are_what_the_command_makes(form: Any, settings: Settings) -> None:
    told = render(settings, form, head="Made by weir slo rules.")
    again = f"weir slo rules --format {form} --out {FILES[form].relative_to(ROOT)}"
    assert FILES[form].read_text("utf-8") == told, f"out of date: {again}"


@needs_promtool
def test_promtool_takes_the_committed_file() -> None:
    assert "SUCCESS" in promtool("check", "rules", FILES["prometheus"])


def test_the_operators_object_has_the_same_groups() -> None:
    plain = yaml.safe_load(FILES["prometheus"].read_text("utf-8"))
    made = yaml.safe_load(FILES["operator"].read_text("utf-8"))
    assert made["kind"] == "PrometheusRule"
    assert made["spec"]["groups"] == plain["groups"]


def test_every_alert_has_its_page(alerts: list[Alert]) -> None:
    names = {alert.name for alert in alerts}
    pages = {file.stem for file in RUNBOOKS.glob("Weir*.md")}
    assert names == pages
    for name in names:
        text = (RUNBOOKS / f"{name}.md").read_text("utf-8")
        assert text.startswith(f"# {name}\n")
        for heading in ("## What it means", "## Look", "## Do"):
            assert heading in text, f"{name}: {heading}"


def test_the_list_of_pages_has_every_alert_with_its_severity(alerts: list[Alert]) -> None:
    told = re.findall(
        r"^\| \[(\w+)\]\(\1\.md\) \| ([a-z ]+) \|",
        (RUNBOOKS / "README.md").read_text("utf-8"),
        re.M,
    )
    severities: dict[str, set[str]] = {}
    for alert in alerts:
        severities.setdefault(alert.name, set()).add(alert.severity)
    assert {name: set(told.split(" and ")) for name, told in told} == severities


def test_commands_in_the_pages_exist() -> None:
    root = typer.main.get_command(app)
    pages = "".join(file.read_text("utf-8") for file in sorted(RUNBOOKS.glob("Weir*.md")))
    commands = set(re.findall(r"`weir ([^`]+)`", pages))
    assert len(commands) > 15
    for command in commands:
        at: Any = root
        for word in command.split():
            if not hasattr(at, "commands"):
                break
            assert word in at.commands, command
            at = at.commands[word]
        options = {name for parameter in at.params for name in parameter.opts}
        if at.name not in ("features",):
            assert set(re.findall(r"--[a-z-]+", command)) <= options, command


def test_pages_link_to_pages_that_exist() -> None:
    for file in RUNBOOKS.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)", file.read_text("utf-8")):
            assert (RUNBOOKS / link).exists(), f"{file.name}: {link}"


@needs_promtool
def test_queries_in_the_pages_are_promql(tmp_path: Path) -> None:
    rules = []
    for file in sorted(RUNBOOKS.glob("Weir*.md")):
        queries = re.findall(r"```promql\n(.*?)```", file.read_text("utf-8"), re.DOTALL)
        for query in queries:
            rules.append({"record": f"page:{file.stem}:{len(rules)}", "expr": query})
            used = set(re.findall(r"\bweir_[a-z0-9_]+(?![a-z0-9_.*])", query))
            assert used <= known_metrics(), f"{file.name}: {used - known_metrics()}"
    assert len(rules) > 30
    made = tmp_path / "pages.yaml"
    made.write_text(yaml.safe_dump({"groups": [{"name": "pages", "rules": rules}]}))
    promtool("check", "rules", made)


def test_alerts_link_to_their_pages(settings: Settings) -> None:
    told = yaml.safe_load(render(settings, "prometheus", runbooks="https://wiki.example/weir/"))
    for group in told["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                url = rule["annotations"]["runbook_url"]
                assert url == f"https://wiki.example/weir/{rule['alert']}.md"


def known_metrics() -> set[str]:
    """Names of weir's metrics, as they stand in an exposition."""
    found = set()
    metrics = GatewayMetrics()
    for registry in (metrics.registry, metrics.shared):
        for family in registry.collect():
            suffixes = {
                "counter": ("_total",),
                "histogram": ("_bucket", "_sum", "_count"),
                "summary": ("_sum", "_count"),
            }.get(family.type, ("",))
            found |= {family.name + suffix for suffix in suffixes}
    return found | {n + "_total" * t.counts for n, t in TIER_METRICS.items()}


def test_every_metric_in_a_rule_exists(settings: Settings) -> None:
    text = render(settings, "prometheus")
    expressions = [
        rule["expr"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]
    ]
    used = {name for each in expressions for name in re.findall(r"\bweir_[a-z0-9_]+", each)}
    assert used - known_metrics() == set()
    recorded = {
        rule["record"]
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    asked = {name for each in expressions for name in re.findall(r"weir:[a-z0-9_:]+", each)}
    assert asked <= recorded


# -- settings ----------------------------------------------------------------------------------


def test_an_objective_that_no_alert_could_watch_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least"):
        SloSettings(window_days=90, ttft=0.95)
    assert SloSettings(window_days=90, ttft=0.98, quality=0.98).ttft == 0.98


def test_a_class_may_have_its_own_objective() -> None:
    slo = SloSettings(classes={"batch": ClassObjectives(availability=0.99)})
    assert slo.share("availability", "batch") == 0.99
    assert slo.share("availability", "standard") == 0.999
    assert slo.share("ttft", "batch") == 0.99


def test_the_windows_are_those_of_the_workbook() -> None:
    told = [(b.long_s // 3600, b.short_s // 60, b.factor(30), b.severity) for b in BURNS]
    assert told == [(1, 5, 14.4, "page"), (6, 30, 6.0, "page"), (72, 360, 1.0, "ticket")]
