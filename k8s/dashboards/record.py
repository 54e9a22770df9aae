"""Starts a platform and a Prometheus, sends traffic, and draws the dashboards from what was told:
``python k8s/dashboards/record.py --out docs/pictures``. Takes three minutes.

Prints the queries that found nothing; the exit code is 1 if one of them says of no reason for it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from boards import DASHBOARDS
from draw import draw
from live import empty_queries, quick_rules, scraped
from traffic import Target, send

from load_tests.features.data import FeastWriter
from weir.samples.corpus import requests
from weir.settings import load_settings
from weir.tenancy import hash_key
from weir.testing.prometheus import Prometheus, prometheus

TENANTS = ("shop", "bank", "agency")
_WEIR = [sys.executable, "-m", "weir.cli.main"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_tree() -> dict[str, Any]:
    """The laptop's platform with two gateways and three tenants, on free ports; its teacher scales
    by itself."""
    models = load_settings("laptop", None).model_dump(mode="json")["models"]
    models[0] |= {"replicas": 1, "autoscaling": {"min_replicas": 1, "max_replicas": 2}}
    return {
        "models": models,
        "server": {"port": _free_port()},
        "redis": {"port": _free_port()},
        "gateway": {"replicas": 2},
        "tenants": [
            {"id": name, "key_sha256": [hash_key(f"weir_key-of-{name}")]} for name in TENANTS
        ],
    }


@contextmanager
def platform(home: Path, tree: dict[str, Any]) -> Iterator[str]:
    """``weir up``, and ``weir down`` afterwards. Yields the platform's own token."""
    config = home / "settings-of-the-run.yaml"
    config.write_text(yaml.safe_dump(tree))
    environment = {**os.environ, "WEIR_HOME": str(home)}
    try:
        subprocess.run(
            [*_WEIR, "up", "--config", str(config)], env=environment, check=True, timeout=420
        )
        yield str(json.loads((home / "secrets.json").read_text())["internal_token"])
    finally:
        subprocess.run([*_WEIR, "down", "--now"], env=environment, check=False, timeout=180)


def _run(home: Path, seconds: float, stack: ExitStack) -> tuple[Prometheus, float, float]:
    """A platform with traffic. Returns the Prometheus that has watched, and from when to when."""
    tree = settings_tree()
    url = f"http://127.0.0.1:{tree['server']['port']}"
    examples = list(requests(3, 60, "heldout", customers=24))
    people = {each.customer.customer_id: each.customer for each in examples}
    keys = {name: f"weir_key-of-{name}" for name in TENANTS}
    with platform(home, tree) as token:
        redis_url = json.loads((home / "platform.json").read_text())["redis_url"]
        for tenant in TENANTS:
            writer = FeastWriter(redis_url, home / f"features-{tenant}")
            writer.write_customers(list(people.values()), dt.datetime.now(dt.UTC), tenant)
        rules = quick_rules(load_settings("laptop", None), home)
        watching = prometheus(home / "prometheus", [scraped(url, token)], [rules])
        server = stack.enter_context(watching)
        time.sleep(2)  # the first scrape
        start_s = time.time()
        target = Target(url, "weir-teacher", keys)
        print("answered:", send(target, examples, seconds, students="weir-student"))
        time.sleep(3)  # the last scrape
        return server, start_s, time.time()


def main() -> int:
    """Run, check, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is stopped
    with tempfile.TemporaryDirectory(prefix="weir-dashboards-") as folder, ExitStack() as stack:
        server, start_s, end_s = _run(Path(folder), arguments.seconds, stack)
        empty = empty_queries(server, start_s + 20, end_s)
        arguments.out.mkdir(parents=True, exist_ok=True)
        for board in DASHBOARDS:
            name = f"dashboard-{board.uid.removeprefix('weir-')}.png"
            draw(server, board, start_s + 5, end_s, arguments.out / name)
    for query, excused in empty.items():
        print(f"nothing: {query}{' (has a reason)' if excused else ''}")
    return int(not all(empty.values()))


if __name__ == "__main__":
    sys.exit(main())
