"""Which addresses of images, audio and video a replica may fetch for a client.

vLLM fetches whatever a message names. A tenant could so have a replica ask addresses that only the
platform's own machines reach: a cloud's metadata, Ray, other services. Unless the operator names
hosts (``engine.args.allowed_media_domains``), only media that the request itself carries are taken.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from weir.errors import BadRequestError

#: Where vLLM looks whether it follows redirects of media.
_REDIRECTS = "VLLM_MEDIA_URL_ALLOW_REDIRECTS"


def forbid_redirects() -> None:
    """Of this process: an allowed host could lead to any other one. The operator may say otherwise
    in the environment."""
    os.environ.setdefault(_REDIRECTS, "0")


def check_media(messages: Sequence[Any], allowed_hosts: Sequence[str] | None) -> None:
    """Refuse addresses of media that the replica may not fetch.

    Raises:
        BadRequestError: there is one; the message names its host.
    """
    for number, url in _urls(messages):
        parts = urlsplit(url)
        if parts.scheme == "data":
            continue
        if parts.scheme not in ("http", "https") or parts.hostname not in (allowed_hosts or ()):
            raise BadRequestError(
                f"messages[{number}]: media are not fetched from {parts.hostname or url[:40]!r}; "
                "send them in the request, as data: URLs.",
                param=f"messages[{number}].content",
            )


def _urls(messages: Sequence[Any]) -> Iterator[tuple[int, str]]:
    """All addresses of media, with the number of their message."""
    for number, message in enumerate(messages):
        content = message.get("content") if isinstance(message, Mapping) else None
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, Mapping):
                continue
            for name, value in part.items():
                url = value.get("url") if isinstance(value, Mapping) else value
                if name.endswith("_url") and isinstance(url, str):
                    yield number, url
