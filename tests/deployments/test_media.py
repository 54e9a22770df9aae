"""Addresses of media that a replica fetches, or does not."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.media import check_media
from weir.errors import BadRequestError


def _asked(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "x"}, {"role": "user", "content": ["hi", part]}]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data"}},
        {"type": "image_url", "image_url": "https://example.org/a.png"},
        {"type": "video_url", "video_url": {"url": "file:///etc/passwd"}},
        {"type": "audio_url", "audio_url": {"url": "HTTP://LOCALHOST:8265/"}},
        {"image_url": {"url": "//example.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "http://good@example.org/a.png"}},
    ],
)
def test_nothing_is_fetched_unless_its_host_is_named(part: dict[str, Any]) -> None:
    for hosts in (None, [], ["good.example"]):
        with pytest.raises(BadRequestError) as refused:
            check_media(_asked(part), hosts)
        assert refused.value.param == "messages[1].content"


def test_media_in_the_request_and_of_named_hosts() -> None:
    for url in ("data:image/png;base64,AA", "https://good.example/a.png"):
        check_media(_asked({"type": "image_url", "image_url": {"url": url}}), ["good.example"])
    check_media(_asked({"type": "image_url", "image_url": {"url": "data:,"}}), None)
    check_media([{"role": "user", "content": "http://example.org/ is text"}], None)
    check_media(_asked({"type": "text", "text": "http://example.org/"}), None)
