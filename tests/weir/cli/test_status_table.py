"""The table of ``weir status``: columns that only some platforms have."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from weir.cli.gateway import parse_deployments
from weir.cli.status import _table


def shown(*replicas: dict[str, Any]) -> list[list[str]]:
    usual = {"state": "RUNNING", "kv_use": 0.5, "running": 1, "waiting": 0}
    named = [{"replica_id": f"r{n}", **usual, **told} for n, told in enumerate(replicas)]
    body = {"deployments": [{"name": "m", "status": "HEALTHY", "replicas": named}]}
    out = io.StringIO()
    Console(file=out, width=200).print(_table(parse_deployments(body)))
    return [line.split() for line in out.getvalue().splitlines()]


def test_tiers_have_columns_where_a_replica_has_tiers() -> None:
    head, _, first, second, third = shown(
        {"kv_memory_use": 0.25, "kv_disk_use": 0.75}, {"kv_memory_use": 1.0}, {}
    )
    assert head[head.index("use") + 1 :][:2] == ["memory", "disk"]
    assert first[2:5] == ["50%", "25%", "75%"]
    assert second[2:5] == ["50%", "100%", "–"]
    assert third[2:5] == ["50%", "–", "–"]


def test_without_tiers_there_are_none() -> None:
    head, _, row = shown({})
    assert "memory" not in head
    assert row[2:4] == ["50%", "1"]
