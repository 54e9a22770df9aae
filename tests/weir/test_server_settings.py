"""The section ``server``: what may be written into HAProxy's configuration."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from weir.settings.server import CorsSettings, MetricsSettings
from weir.settings.tree import ServerSettings


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "null", "https://a.example", "http://localhost:*", "https://*.a.example:8443"),
        *("http://[::1]:3000", "chrome-extension://abcdef"),
    ],
)
def test_origins_of_pages(origin: str) -> None:
    assert CorsSettings(origins=(origin,)).origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        *("", "a.example", "https://a.example/", "https://a.example/page", "https://a b"),
        *("https://a'", "https://a\nb", "https://(a|b)", "https://a:80:90", "HTTPS://a.example"),
    ],
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ValidationError):
        CorsSettings(origins=(origin,))


@pytest.mark.parametrize("name", ["", "x y", "x\n", "%[src]", 'x"'])
def test_what_is_no_header(name: str) -> None:
    with pytest.raises(ValidationError):
        CorsSettings(headers=(name,))


@pytest.mark.parametrize(
    "metrics", [{"port": 8000}, {"key_sha256": ["weir_in-clear"]}, {"port": 0}, {"keys": []}]
)
def test_metrics_that_cannot_be(metrics: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ServerSettings(metrics=MetricsSettings(**metrics))
