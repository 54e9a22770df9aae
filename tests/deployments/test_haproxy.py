"""The front door against small HTTP servers: a real HAProxy, no Ray."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from deployments.guard import Guard
from deployments.haproxy import FrontDoor
from deployments.haproxy_config import SLOTS, Target, assign_slots
from deployments.haproxy_pages import error_pages
from weir.settings.tree import ServerSettings


class _Gateway(BaseHTTPRequestHandler):
    """Says what headers it got; ``/fail`` is what Serve answers when it fails."""

    def do_GET(self) -> None:
        status = 500 if self.path == "/fail" else 200
        kind = "text/plain" if status == 500 else "application/json"
        body = json.dumps({"name": self.server.name, "headers": list(self.headers.keys())})  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def gateway(name: str) -> Iterator[Target]:
    """One gateway; it refuses connections afterwards."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Gateway) as server:
        server.daemon_threads = True
        server.name = name  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Target(name, "127.0.0.1", server.server_port)
        server.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def front(tmp_path: Path) -> Iterator[FrontDoor]:
    made = FrontDoor(ServerSettings(port=_free_port()), tmp_path / "haproxy", one_active=True)
    made.start()
    yield made
    made.stop()


def _get(front: FrontDoor, path: str = "/", **headers: str | bytes) -> httpx.Response:
    named = [(k.replace("_", "-").encode(), v) for k, v in headers.items()]
    raw = [(k, v if isinstance(v, bytes) else v.encode()) for k, v in named]
    with httpx.Client(trust_env=False, timeout=10) as client:
        return client.get(f"http://127.0.0.1:{front.port}{path}", headers=raw)


def test_without_a_gateway_the_answer_is_weirs_503(front: FrontDoor) -> None:
    answer = _get(front)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "overloaded"


def test_every_page_is_json_of_its_stated_length() -> None:
    for status, page in error_pages().items():
        head, _, body = page.partition("\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert f"content-length: {len(body)}" in head
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
        assert json.loads(body)["type"] == "error", "Anthropic's clients find their shape too"
        assert ("retry-after" in head) == (status not in (400, 404, 504))
        assert ("x-should-retry: false" in head) == (status == 504)


def test_headers_that_steer_serve_stay_outside(front: FrontDoor) -> None:
    with gateway("one") as one:
        front.route_to([one])
        answer = _get(
            front,
            x_request_disconnect_disabled="?1",
            X_Request_Timeout_Seconds="0.001",
            serve_multiplexed_model_id="m",
            x_request_id=b"caf\xe9",
            traceparent=b"\xff",
            x_weir_entity="e",
        )
        got = {name.lower() for name in answer.json()["headers"]}
        assert got & {"x-weir-entity"}
        assert not {name for name in got if "x-request-" in name or "multiplexed" in name} - {
            "x-request-id"
        }
        assert "traceparent" not in got
        kept = _get(front, x_request_id="plain-1").json()["headers"]
        assert "x-request-id" in {name.lower() for name in kept}


def test_an_underscored_name_does_not_get_through_either(front: FrontDoor) -> None:
    with gateway("one") as one:
        front.route_to([one])
        with httpx.Client(trust_env=False) as client:
            headers = {"Serve_Multiplexed_Model_Id": "m", "serve-multiplexed_model-id": "m"}
            answer = client.get(f"http://127.0.0.1:{front.port}/", headers=headers)
        assert not [n for n in answer.json()["headers"] if "multiplexed" in n.lower()]


def test_plain_errors_of_serve_become_weirs(front: FrontDoor) -> None:
    with gateway("one") as one:
        front.route_to([one])
        answer = _get(front, "/fail")
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        assert answer.headers["retry-after"] == "1"


def test_the_standby_takes_over_without_a_failed_request(front: FrontDoor) -> None:
    with gateway("standby") as standby:
        with gateway("first") as first:
            front.route_to([first, standby])
            assert {_get(front).json()["name"] for _ in range(5)} == {"first"}
        answers = [_get(front) for _ in range(20)]
        assert [a.status_code for a in answers] == [200] * 20
        assert {a.json()["name"] for a in answers} == {"standby"}


def test_a_closed_door_answers_503(front: FrontDoor) -> None:
    with gateway("one") as one:
        front.route_to([one])
        assert _get(front).status_code == 200
        front.close()
        answer = _get(front)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


def test_a_killed_front_door_comes_back_with_its_gateways(front: FrontDoor) -> None:
    told = threading.Event()
    with gateway("one") as one:
        guard = Guard(lambda: [one], front, lambda _: told.set())
        guard.start()
        try:
            _wait_until_ok(front)
            killed = front.pid
            assert front._process is not None
            front._process.kill()
            assert told.wait(10)
            assert front.pid != killed
            _wait_until_ok(front)
        finally:
            guard.stop()


def _wait_until_ok(front: FrontDoor) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            if _get(front).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_restarted_controller_that_knows_nobody_changes_nothing(front: FrontDoor) -> None:
    with gateway("one") as one:
        front.route_to([one])
        front.route_to([])
        assert _get(front).status_code == 200


def test_gateways_keep_their_slots_and_new_ones_come_last() -> None:
    a, b, c = (Target(name, "h", n) for n, name in enumerate("abc", 1))
    slots = assign_slots({}, [a, b])
    assert slots == {1: a, 2: b}
    assert assign_slots(slots, [c, b]) == {2: b, 3: c}
    moved = Target("b", "h", 9)
    assert assign_slots(slots, [moved]) == {2: moved}


def test_slots_are_used_again_when_the_last_is_taken() -> None:
    last = Target("last", "h", 1)
    new = [Target(f"new{n}", "h", n) for n in range(SLOTS + 5)]
    slots = assign_slots({SLOTS: last}, [last, *new])
    assert len(slots) == SLOTS
    assert slots[SLOTS] == last
    assert slots[1] == new[0]


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (4, 2), (64, 4)])
def test_it_has_a_thread_for_two_cores(
    cores: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    front = FrontDoor(ServerSettings(port=_free_port()), tmp_path / "haproxy", one_active=True)
    try:
        front.start()
        assert f"nbthread {threads}\n" in (tmp_path / "haproxy" / "haproxy.cfg").read_text()
    finally:
        front.stop()
