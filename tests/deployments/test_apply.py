"""What ``weir apply`` may change of a platform that runs."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.platform import require_same_base
from weir.errors import ConfigError
from weir.settings import ModelSettings, Settings
from weir.settings.server import CorsSettings, MetricsSettings
from weir.settings.tree import ServerSettings


def _settings(**server: Any) -> Settings:
    return Settings(models=(ModelSettings(name="m", source="x"),), server=ServerSettings(**server))


@pytest.mark.parametrize(
    ("server", "named"),
    [
        ({"port": 9}, "server.port"),
        ({"cors": CorsSettings(origins=())}, "server.cors"),
        ({"max_connections": 9}, "server.max_connections"),
        ({"metrics": MetricsSettings(port=9)}, "server.metrics"),
    ],
)
def test_the_front_door_stays_as_it_is(server: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named}: .*restart"):
        require_same_base(_settings(), _settings(**server))


def test_the_rest_of_the_section_may_change() -> None:
    keys = MetricsSettings(key_sha256=("0" * 64,))
    require_same_base(_settings(), _settings(metrics=keys, request_timeout_s=9))
