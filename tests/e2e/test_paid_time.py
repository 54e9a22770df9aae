"""What is paid for replicas, beside the processes that they are."""

from __future__ import annotations

import json
import time
from typing import Any

import psutil
import pytest
from sqlalchemy import func, select

from weir.database import open_database, reading
from weir.ledger.tables import replica_hours

pytestmark = pytest.mark.e2e
_TOLD_WITHIN_S = 120.0


def _began_s(platform: Any) -> dict[str, float]:
    """When the process of each replica of a model began, by the port that it listens at."""
    pids = {c.laddr.port: c.pid for c in psutil.net_connections("tcp") if not c.raddr}
    return {
        replica["replica_id"]: psutil.Process(pids[port]).create_time()
        for deployment in platform.status()["deployments"]
        for replica in deployment["replicas"]
        if replica.get("address") and (port := int(replica["address"].rpartition(":")[2])) in pids
    }


def _told_s(platform: Any) -> dict[str, float]:
    """From when each replica is paid."""
    database = open_database(f"sqlite:///{platform.home / 'weir.db'}")
    first = select(replica_hours.c.replica, func.min(replica_hours.c.first_ms))
    with reading(database) as connection:
        rows = connection.execute(first.group_by(replica_hours.c.replica)).all()
    database.dispose()
    return {replica: first_ms / 1000 for replica, first_ms in rows}


def test_replicas_are_paid_from_when_their_processes_began(platform: Any) -> None:
    began_s = _began_s(platform)
    assert len(began_s) >= 2
    give_up_s = time.monotonic() + _TOLD_WITHIN_S
    while not (told_s := _told_s(platform)).keys() >= began_s.keys():
        assert time.monotonic() < give_up_s, "the ledger does not hear of replicas"
        time.sleep(1.0)
    later_s = [told_s[replica] - began_s[replica] for replica in began_s]
    assert min(later_s) > -0.1
    # Ray takes some processes that it had kept idle: those are paid from when Serve asked.
    assert min(later_s) < 2.0
    report = platform.weir("cost", "report", "--by", "model", "--json")
    assert report.returncode == 0, report.stderr
    told = json.loads(report.stdout)
    assert sum(float(pool["replica_hours"]) for pool in told["pools"]) > 0
