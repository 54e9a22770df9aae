"""Writes the dashboards as Grafana's JSON: ``python k8s/dashboards/generate.py``.

Made with Grafana's own builders (grafana-foundation-sdk, which follows Grafana 11.6). The source of
data is a variable, so a dashboard is imported without a question about it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from boards import DASHBOARDS
from grafana_foundation_sdk.builders import common, dashboard, stat, table, timeseries
from grafana_foundation_sdk.builders import prometheus as prom
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    VariableRefresh,
)
from panels import Dashboard, Panel, Query

FOLDER = Path(__file__).resolve().parent
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHT = 8
_STAT_HEIGHT = 4
#: Where the values of a variable come from.
_VALUES = {
    "model": "label_values(weir_replicas, model)",
    "tenant": "label_values(weir_requests_total, tenant)",
    "priority": "label_values(weir_admission_waiting, priority)",
}
_LABELS = {"model": "Model", "tenant": "Tenant", "priority": "Class"}
#: What Grafana has no unit for is written behind the number.
_SUFFIXED = {"tokens/s", "blocks/s", "/s"}


def rendered(board: Dashboard) -> str:
    """One dashboard's JSON."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.about)
        .tags(["weir"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("weir")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["weir"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Source").type("prometheus")
        )
    )
    for name in board.variables:
        made.with_variable(_variable(name))
    number = itertools.count(1)
    for row in board.rows:
        made.with_row(dashboard.Row(row.title).id(next(number)))
        for panel in row.panels:
            made.with_panel(_panel(panel).id(next(number)))
    whole: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    return json.dumps(whole, indent=1, sort_keys=True) + "\n"


def _variable(name: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(_LABELS[name])
        .datasource(_SOURCE)
        .query(_VALUES[name])
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def _panel(panel: Panel) -> Any:
    if panel.kind == "stat":
        made: Any = stat.Panel().height(_STAT_HEIGHT)
    elif panel.kind == "table":
        made = table.Panel().height(_HEIGHT)
    else:
        made = _lines(panel)
    made.title(panel.title).description(panel.about).datasource(_SOURCE).span(panel.width)
    made.unit(f"suffix: {panel.unit}" if panel.unit in _SUFFIXED else panel.unit)
    if panel.laptop:
        made.no_value("none")
    for number, query in enumerate(panel.queries):
        made.with_target(_target(query, chr(ord("A") + number), panel.kind == "table"))
    return made


def _lines(panel: Panel) -> Any:
    made = (
        timeseries.Panel()
        .height(_HEIGHT)
        .line_width(1)
        .fill_opacity(25 if panel.kind == "stack" else 0)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if panel.kind == "stack":
        made.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if panel.least is not None:
        made.min(panel.least)
    if panel.most is not None:
        made.max(panel.most)
    return made


def _target(query: Query, ref_id: str, instant: bool) -> prom.Dataquery:
    made = prom.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(ref_id)
    made.datasource(_SOURCE)
    return made.instant() if instant else made.range()


def main() -> int:
    """Write them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder; left out: this one")
    arguments = parser.parse_args()
    for board in DASHBOARDS:
        (arguments.out / f"{board.uid}.json").write_text(rendered(board), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
