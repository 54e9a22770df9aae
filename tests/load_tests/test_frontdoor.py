"""The front door bench's arithmetic: what counts as an outage, and what becomes a mark."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from load_tests.bench_frontdoor import marks, medians
from load_tests.frontdoor.outage import Client, LongStream, measure


class _Server(BaseHTTPRequestHandler):
    """Answers 200, except for the first ``failures`` requests after ``broken`` is set."""

    broken = threading.Event()
    failures = 3

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        fails = _Server.broken.is_set() and _Server.failures > 0
        if fails:
            _Server.failures -= 1
        body = b"data: {}\n\ndata: [DONE]\n\n"
        self.send_response(503 if fails else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def _served() -> Iterator[Client]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Client(f"http://127.0.0.1:{server.server_port}", "key", "model")
        server.shutdown()


def test_an_outage_ends_with_the_last_failed_request() -> None:
    with _served() as client:
        outage = measure(client, _Server.broken.set, calm_s=0.5)
    assert outage.failed == 3
    assert outage.statuses == (503,)
    assert 0 < outage.seconds < 5
    assert outage.requests > 3


def test_a_stream_is_whole_when_it_ends_with_done() -> None:
    with _served() as client, LongStream(client, 10) as stream:
        pass
    assert stream.whole
    with LongStream(Client("http://127.0.0.1:1", "key", "model"), 10) as refused:
        pass
    assert not refused.whole


def _row(system: str, seconds: float, **more: float) -> dict[str, object]:
    return {"system": system, "without_service_s": seconds, **more}


def test_marks_are_medians_but_no_write_may_be_lost() -> None:
    rows = [
        *(_row("HAProxy", s) for s in (0.1, 5.0, 0.2)),
        _row("the active gateway", 4.0),
        *(_row("Redis", 0.0, redis_back_s=0.2, writes_lost=n) for n in (0, 2, 0)),
        _row("Serve's controller", 0.0, streams_broken=0),
        _row("the supervisor", 0.0, streams_broken=1),
    ]
    found = {mark.name: mark for mark in marks(medians(rows), 4200.0)}
    assert found["HAProxy killed"].value == 0.2
    assert found["HAProxy killed"].met
    assert not found["the gateway killed"].met
    assert found["writes that Redis lost"].value == 2
    assert found["streams broken, controller or supervisor killed"].value == 1
    assert found["PSS of the whole platform, standby included"].value == 4.2
