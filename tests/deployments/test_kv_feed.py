"""Where engines publish KV events; tests/deployments/tiers/test_engine.py hears them."""

from __future__ import annotations

from pathlib import Path

import cloudpickle
import pytest

from deployments.kv_feed import open_feed
from deployments.pools import pools_of
from weir.settings import load_settings


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


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore")  # what Ray imports has some of its own
def test_an_engine_is_told_to_publish_although_it_was_described_before() -> None:
    """Ray makes the engine's arguments when the deployment is described, and keeps them."""
    from deployments.deploy import llm_config
    from deployments.replica import _publish_kv_events

    settings = load_settings("laptop", None)
    config = llm_config(pools_of(settings.models[0])[0], settings)
    assert config.get_engine_config().engine_kwargs
    config = cloudpickle.loads(cloudpickle.dumps(config))
    feed = _publish_kv_events(config, "127.0.0.1")
    assert feed is not None
    told = config.get_engine_config().engine_kwargs["kv_events_config"]
    assert told == feed.engine_argument()
    feed.close()
