"""Where engines publish KV events; tests/deployments/tiers/test_engine.py hears them."""

from __future__ import annotations

from pathlib import Path

from deployments.kv_feed import open_feed


def test_what_only_this_machine_may_reach_is_no_network_address() -> None:
    feed = open_feed("127.0.0.1")
    assert feed.bind == feed.events
    folder = Path(feed.events.removeprefix("ipc://")).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(feed.replay) < 100, "Unix sockets have short names"
    feed.close()
    assert not folder.exists()


def test_vllm_binds_only_with_a_wildcard_and_others_connect_to_the_host() -> None:
    feed = open_feed("0.0.0.0")
    assert feed.bind.startswith("tcp://*:")
    assert feed.events == feed.bind.replace("*", "0.0.0.0")
    assert feed.replay.startswith("tcp://0.0.0.0:")
    told = feed.engine_argument()
    assert (told["endpoint"], told["replay_endpoint"]) == (feed.bind, feed.replay)
