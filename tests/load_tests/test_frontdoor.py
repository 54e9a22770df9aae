"""The front door bench's arithmetic: what counts as an outage, and what becomes a mark."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from load_tests.bench_frontdoor import marks, medians
from load_tests.frontdoor.faults import Look, Looks
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
    some = {mark.name: mark for mark in marks(medians(rows[:3]), 4200.0)}
    assert some["HAProxy killed"].value == 0.2
    assert some["Redis killed"].value is None


def test_a_time_that_is_missing_once_is_not_in_the_median() -> None:
    rows = [_row("an engine", 0.0) | {"whole_again_s": value} for value in (9.0, None, 7.0, 8.0)]
    assert medians(rows)[0]["whole_again_s"] == 8.0


def _looks(*said: tuple[float, str, int]) -> Looks:
    now_s = time.monotonic()
    return Looks(Path(), [Look(now_s + at_s, state, 0, running) for at_s, state, running in said])


def test_all_is_there_again_when_it_stays() -> None:
    before, died_s = (-60.0, "running", 3), time.monotonic() - 40.0
    looks = _looks(
        before,
        (-39.0, "running", 3),
        (-30.0, "running", 2),
        (-20.0, "starting", 0),
        (-10.0, "running", 3),
        (-5.0, "running", 3),
    )
    whole_s = looks.whole_after(died_s, 240.0)
    assert whole_s is not None
    assert round(whole_s) == 30
    assert looks.words() == (
        "running (0), 3 up -> running (0), 2 up -> starting (0), 0 up -> running (0), 3 up"
    )


def test_what_never_looked_broken_was_whole_all_the_time() -> None:
    looks = _looks((-60.0, "running", 3), (-1.0, "running", 3))
    assert looks.whole_after(time.monotonic() - 40.0, 240.0) == 0.0
    degraded = _looks((-60.0, "running", 3), (-1.0, "degraded", 3))
    assert degraded.whole_after(time.monotonic() - 40.0, 30.0) is None
