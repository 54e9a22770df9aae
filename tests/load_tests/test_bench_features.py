"""The features bench: its marks, its proxy, its computed placement."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from load_tests.bench_features import answer_marks, fault_marks, latency_marks
from load_tests.features.answers import WAYS, examples
from load_tests.features.data import features_section, plan
from load_tests.features.placement import placement_rows
from load_tests.features.proxy import FaultyProxy, faulty_proxy
from load_tests.servers import engine_workload
from weir.settings import load_settings


def test_what_was_not_measured_is_said_to_be() -> None:
    marks = [*latency_marks([]), *fault_marks([]), *answer_marks([], [], "no platform")]
    assert [mark.value for mark in marks] == [None] * 13
    assert all(mark.reason and not mark.met for mark in marks)


def test_the_ratio_is_taken_within_rounds() -> None:
    figures = {"p50_ms": 0.1, "p99_ms": 1.0}
    rounds = [
        {
            "weir-enricher": figures,
            "weir": {"most_per_s": fast},
            "feast-async": {"most_per_s": slow},
        }
        for fast, slow in ((100.0, 10.0), (40.0, 2.0), (90.0, 30.0))
    ]
    p50, p99, ratio = latency_marks(rounds)
    assert (p50.value, p99.value, ratio.value) == (0.1, 1.0, 10.0)
    assert p50.met
    assert p99.met
    assert ratio.met


def test_a_long_wait_misses_its_mark() -> None:
    rows = [
        {"system": "Redis hangs", "max_ms": 10.1},
        {"system": "Redis killed", "max_ms": 0.2},
    ]
    met = {mark.name: mark.met for mark in fault_marks(rows)}
    assert met["longest wait, Redis killed"]
    assert not met["longest wait, Redis hangs"]


def test_gain_and_ratio_come_from_the_right_rows() -> None:
    rows = [
        {"system": way.title, "right_share": share}
        for way, share in zip(WAYS, (0.9, 0.8, 0.1, 0.9), strict=True)
    ]
    gain, same, _ = answer_marks([], rows, "")
    assert gain.value == pytest.approx(0.8)
    assert same.value == 1.0


def test_features_behind_the_system_prompt_leave_more_to_share() -> None:
    rows = placement_rows(engine_workload(None).model, examples(7, 40))
    share = {row["system"]: row["kv_cache_hit_share"] for row in rows}
    assert 0 < share["before_system"] < share["after_system"] < 1


def test_the_benchs_settings_are_valid_and_read_ten_features() -> None:
    overlay = {"features": features_section("redis://127.0.0.1:1/0")}
    assert load_settings("stub", overlay=overlay).features.cache.entries == 0
    assert plan().n_fields == 10 + 3


@pytest.fixture
def upstream() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


def through(proxy: FaultyProxy, upstream: socket.socket) -> bytes:
    """What a client reads when the server has said ``hello``; empty if it was hung up on."""
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as client:
        served, _ = upstream.accept()
        with served:
            client.settimeout(0.3)
            served.sendall(b"hello")
            try:
                return client.recv(16)
            except TimeoutError:
                return b"(nothing)"


def test_the_proxy_fails_as_it_is_told(upstream: socket.socket) -> None:
    with faulty_proxy(upstream.getsockname()[1], seed=1) as proxy:
        assert through(proxy, upstream) == b"hello"
        proxy.fail("hanging")
        assert through(proxy, upstream) == b"(nothing)"
        proxy.fail("garbage")
        assert through(proxy, upstream) not in (b"hello", b"(nothing)", b"")
        proxy.fail("killed")
        with pytest.raises(ConnectionRefusedError):
            through(proxy, upstream)
        proxy.fail("none")
        assert through(proxy, upstream) == b"hello"
