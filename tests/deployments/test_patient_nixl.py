"""Bounds in time on what comes by NIXL: what is given up, in which order, and what is not read.

With real engines and a frozen peer: ``weir bench pdfaults``, and its test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import json, threading, time
from types import SimpleNamespace
import deployments.patient_nixl as nixl
from deployments.outputs import fresh_params, kept_blocks

told = []

class Base:
    # What of vLLM's worker is called.
    def _cleanup_remote_engine(self, engine_id):
        told.append(["closed", engine_id])
        del self._remote_agents[engine_id]
    def _handle_failed_transfer(self, request_id, handle):
        told.append(["failed", request_id, handle])

class Worker(nixl.PatientWorker):
    _cleanup_remote_engine = Base._cleanup_remote_engine
    _handle_failed_transfer = Base._handle_failed_transfer
    def __del__(self):
        pass

def released(handle):
    told.append(["released", handle])
    if handle == 3:
        raise RuntimeError("it is active")

def meta(engine, request, blocks=((1, 2),)):
    return SimpleNamespace(remote=SimpleNamespace(engine_id=engine, request_id=request),
                           local_block_ids=blocks)

def worker():
    made = Worker.__new__(Worker)
    made._patience_s, made._fresh_s = 5.0, 3.0
    made._reading_s, made._renewed_s = {}, {}
    made._recving_transfers, made._recving_metadata = {}, {}
    made._remote_agents = {"slow": {}, "well": {}}
    made._handshake_lock = threading.RLock()
    made.nixl_wrapper = SimpleNamespace(release_xfer_handle=released)
    return made

out = {}
one = worker()
now_s = time.perf_counter()
transfers = [("a", "slow", now_s - 9, [1, 2]), ("b", "slow", now_s, [3]), ("c", "well", now_s, [4])]
for request, engine, began_s, handles in transfers:
    one._recving_transfers[request] = handles
    one._recving_metadata[request] = meta(engine, "remote-" + request)
    one._reading_s[request] = began_s
one._give_up(now_s - 20)
out["patient"] = list(told)
one._give_up(now_s - 5)
out["given up"] = list(told)
out["left"] = sorted(one._recving_transfers)

told.clear()
read = []
nixl.NixlPullConnectorWorker._read_blocks_for_req = lambda self, r, m: read.append(r)
nixl.NixlPullConnectorWorker._send_heartbeats = lambda self, m: None
nixl.NixlPullConnectorWorker.start_load_kv = lambda self, m: None
two = worker()
first = SimpleNamespace(reqs_to_recv={"x": meta("slow", "rx"), "y": meta("slow", "ry")})
two.start_load_kv(first)
two._renewed_s = {r: at_s - 4 for r, at_s in two._renewed_s.items()}
beat = lambda *requests: SimpleNamespace(
    heartbeat_by_engine={"slow": SimpleNamespace(req_ids=set(requests))})
two._send_heartbeats(beat("ry"))
for name in "xy":
    two._read_blocks_for_req(name, first.reqs_to_recv[name])
two._renewed_s["rz"] = two._renewed_s["rw"] = time.perf_counter() - 4
two._read_blocks_for_req("z", meta("slow", "rz", ((),)))
del two._remote_agents["slow"]
two._send_heartbeats(beat("rw"))
two._read_blocks_for_req("w", meta("slow", "rw"))
out["read"], out["not read"] = read, [t[1] for t in told]

blocks = kept_blocks({"remote": [1]}, 100.0)
out["fresh"] = [fresh_params(blocks, at_s, 6.0) for at_s in (99.0, 106.0, 106.1)]
print("RESULT" + json.dumps(out), flush=True)
"""


@pytest.fixture(scope="module")
def result(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT)


def test_a_connection_is_closed_before_its_blocks_are_free(result: dict[str, Any]) -> None:
    assert result["patient"] == []
    closed, *rest = result["given up"]
    assert closed == ["closed", "slow"]
    # All transfers of that engine, also the young one whose handle cannot be released.
    assert rest == [
        ["released", 1],
        ["released", 2],
        ["failed", "a", None],
        ["released", 3],
        ["failed", "b", None],
    ]
    assert result["left"] == ["c"]


def test_what_may_belong_to_another_prompt_is_not_read(result: dict[str, Any]) -> None:
    assert result["read"] == ["y", "z"]  # renewed; and nothing to read
    assert result["not read"] == ["x", "w"]


def test_blocks_have_an_age(result: dict[str, Any]) -> None:
    assert result["fresh"] == [{"remote": [1]}, {"remote": [1]}, None]
