"""Dashboards and rules against a real Prometheus that scrapes the running platform."""

from __future__ import annotations

import datetime as dt
import json
import time
from pathlib import Path
from typing import Any

import pytest

from load_tests.features.data import FeastWriter
from weir.samples.corpus import requests
from weir.settings import load_settings
from weir.testing.prometheus import installed, prometheus

FOLDER = Path(__file__).resolve().parents[2] / "k8s" / "dashboards"
_TRAFFIC_S = 45.0

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
    pytest.mark.skipif(not installed(), reason="Debian's package prometheus is not installed"),
]


@pytest.mark.timeout(400)
def test_no_panel_is_empty_and_sums_are_right(
    platform: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Panels that cannot have data here say why. Nothing of the traffic is counted twice."""
    monkeypatch.syspath_prepend(str(FOLDER))
    from live import empty_queries, quick_rules, scraped
    from traffic import Target, send

    rules = quick_rules(load_settings("laptop", None), tmp_path)
    examples = list(requests(3, 60, "heldout", customers=24))
    people = {each.customer.customer_id: each.customer for each in examples}
    url = str(json.loads((platform.home / "platform.json").read_text())["redis_url"])
    writer = FeastWriter(url, tmp_path / "features")
    writer.write_customers(list(people.values()), dt.datetime.now(dt.UTC), "demo")
    scrape = scraped(platform.url, platform.internal_token)
    count = 'sum(weir_requests_total{endpoint="chat",status="200"}) or vector(0)'
    with prometheus(tmp_path / "prometheus", [scrape], [rules]) as server:
        server.wait(lambda p: p.value('up{job="weir"}') == 1, 60)
        before = server.value(count) or 0.0
        target = Target(platform.url, platform.model, {"demo": platform.key})
        start_s = time.time()
        sent = send(target, examples, _TRAFFIC_S, clients=3, students="weir-student")
        server.wait(lambda p: (p.value(count) or 0.0) - before == sent["demo"], 30)
        # Gateways tell once a minute how long replicas are up, and money is a minute old.
        server.wait(lambda p: p.value("sum(weir_month_paid_usd) > 0"), 150)
        empty = empty_queries(server, start_s + 20, time.time())
        assert [query for query, excused in empty.items() if not excused] == []
        server.wait(lambda p: p.value("max(weir_part_up)") == p.value("min(weir_part_up)") == 1, 30)
        firing = server.query('ALERTS{alertname!~".*Burning",alertstate="firing"}')
        assert [labels["alertname"] for labels, _ in firing] == []
