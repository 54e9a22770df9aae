"""The dashboards' JSON is what their definitions make, and Prometheus understands every query."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from weir.metrics import TIER_METRICS, ControlMetrics, GatewayMetrics
from weir.settings import load_settings
from weir.slo import render
from weir.testing.prometheus import installed, promtool

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "k8s" / "dashboards"
FILES = sorted(FOLDER.glob("weir-*.json"))
#: vLLM's names that are used; a test with a real engine sees whether they are still there.
ENGINE_SUFFIXES = ("_total", "_bucket", "_sum", "_count", "")


def _dashboards() -> list[dict[str, Any]]:
    return [json.loads(file.read_text("utf-8")) for file in FILES]


def _panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def _expressions() -> list[tuple[str, str]]:
    return [
        (f"{board['uid']}: {panel['title']}", target["expr"])
        for board in _dashboards()
        for panel in _panels(board)
        for target in panel["targets"]
    ]


def test_there_are_the_dashboards() -> None:
    assert {file.stem for file in FILES} >= {
        "weir-overview",
        "weir-slo",
        "weir-cost",
        "weir-router",
        "weir-engines",
        "weir-pools",
        "weir-features",
        "weir-fallback",
        "weir-autoscaling",
    }


def test_the_committed_files_are_what_the_definitions_make(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "generate.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=120)
    made = {file.name: file.read_text("utf-8") for file in tmp_path.glob("*.json")}
    have = {file.name: file.read_text("utf-8") for file in FILES}
    assert made == have, "out of date: python k8s/dashboards/generate.py"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dashboard_can_be_imported(file: Path) -> None:
    board = json.loads(file.read_text("utf-8"))
    assert board["uid"] == file.stem
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert "id" not in board or board["id"] is None
    sources = {
        target["datasource"]["uid"] for panel in _panels(board) for target in panel["targets"]
    }
    assert sources == {"${datasource}"}
    assert board["templating"]["list"][0]["type"] == "datasource"
    used = set(re.findall(r"\$(\w+)", json.dumps([p["targets"] for p in _panels(board)])))
    defined = {variable["name"] for variable in board["templating"]["list"]}
    assert used - {"__rate_interval"} <= defined
    assert all(panel["description"] for panel in _panels(board))


@pytest.mark.skipif(not installed(), reason="Debian's package prometheus is not installed")
def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    expressions = _expressions()
    assert len(expressions) > 80
    rules = []
    for number, (_, expression) in enumerate(expressions):
        expr = expression.replace("$__rate_interval", "5m")
        rules.append({"record": f"q{number}", "expr": re.sub(r"\$\w+", ".*", expr)})
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_every_metric_in_a_query_exists() -> None:
    known = set()
    metrics = GatewayMetrics()
    for registry in (metrics.registry, metrics.shared, ControlMetrics().registry):
        for family in registry.collect():
            known |= {family.name + suffix for suffix in ENGINE_SUFFIXES}
    known |= {name + "_total" * tier.counts for name, tier in TIER_METRICS.items()}
    rules = yaml.safe_load(render(load_settings("laptop", None), "prometheus"))
    recorded = {
        rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule
    }
    for where, expression in _expressions():
        assert set(re.findall(r"\bweir_\w+", expression)) <= known, where
        assert set(re.findall(r"\bweir:[\w:]+", expression)) <= recorded, where


def test_panels_do_not_overlap() -> None:
    for board in _dashboards():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            assert not cells & taken, f"{board['uid']}: {panel['title']}"
            assert at["x"] + at["w"] <= 24
            taken |= cells


def test_the_table_of_metrics_is_as_they_are() -> None:
    from k8s.metrics_table import PAGE, page

    text = PAGE.read_text("utf-8")
    assert page(text) == text, "out of date: python -m k8s.metrics_table"
