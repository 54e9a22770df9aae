"""The front door: which web pages may call it, and who may read the metrics."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from weir.settings.section import Section

Port = Annotated[int, Field(ge=1, le=65535)]
KeyDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Narrow, because both are written into HAProxy's configuration.
Origin = Annotated[
    str, Field(pattern=r"^(\*|null|[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9.*-]+)(:[0-9*]+)?)$")
]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]


class CorsSettings(Section):
    """Which web pages may call the API from a browser.

    ``origins``: scheme, host and port of a page; ``*`` in a host stands for any part of it, ``:*``
    for any port or none, ``*`` alone for every page. None switches CORS off. ``headers``: request
    headers that a page may send; empty for whatever it asks for. ``max_age_s``: how long a browser
    remembers the answer.

    The default lets pages of the user's own machine in. Keys travel in headers that a page has to
    set itself, never in cookies, so a foreign page that is let in has no more rights than any other
    client without a key; but it could reach an address that only its visitor's machine can reach.
    """

    origins: tuple[Origin, ...] = (
        "http://localhost:*",
        "http://127.0.0.1:*",
        "http://[::1]:*",
    )
    headers: tuple[HeaderName, ...] = ()
    max_age_s: int = Field(600, ge=0)


class MetricsSettings(Section):
    """Who may read ``/metrics``, and what ``/ready`` says in detail: whoever has one of the keys
    with these digests, and everybody who reaches ``host:port`` where ``port`` is set.
    ``max_tenants``: so many tenants have series of their own in each gateway; the others share
    those of ``_other``."""

    host: str = "127.0.0.1"
    port: Port | None = None
    key_sha256: tuple[KeyDigest, ...] = ()
    max_tenants: int = Field(2000, ge=1)


class RefusalSettings(Section):
    """How fast a tenant's requests are refused (a 4xx), and those of all callers together whose key
    nobody knows: ``at_once`` without a wait, then ``per_s`` a second. Further ones wait."""

    per_s: float = Field(20.0, gt=0)
    at_once: int = Field(100, ge=0)
