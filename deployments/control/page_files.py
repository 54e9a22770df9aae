"""The files of ``/dashboard``. They have nothing of anybody: what the page shows it asks for with
the key that is pasted into it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from types import MappingProxyType
from typing import Final

from fastapi import FastAPI, Request, Response

PAGE_PATH: Final = "/dashboard"
#: What the page may load: its own files, and answers of the API. No inline script or style.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-cache",
    }
)
_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)
#: Below :data:`PAGE_PATH`; the empty name is the page itself.
FILES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "": "index.html",
        "style.css": "style.css",
        "icon.svg": "icon.svg",
        "main.js": "main.js",
        "api.js": "api.js",
        "format.js": "format.js",
        "chart.js": "chart.js",
        "panels.js": "panels.js",
        "tables.js": "tables.js",
        "request.js": "request.js",
        "vendor/preact.js": "vendor/preact.js",
        "vendor/uplot.js": "vendor/uplot.js",
        "vendor/uplot.css": "vendor/uplot.css",
    }
)


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media_type: str
    etag: str

    async def __call__(self, request: Request) -> Response:
        headers = {**_HEADERS, "etag": self.etag}
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=headers, media_type=self.media_type)


def add_page(app: FastAPI) -> None:
    """The page and its files, as they are in the package now."""
    folder = resources.files("deployments.control") / "page"
    for below, name in FILES.items():
        body = folder.joinpath(name).read_bytes()
        kind = _TYPES[name[name.rindex(".") :]]
        file = _File(body, kind, f'"{sha256(body).hexdigest()[:16]}"')
        answer: Callable[[Request], Awaitable[Response]] = file.__call__
        path = f"{PAGE_PATH}/{below}" if below else PAGE_PATH
        app.add_route(path, answer, include_in_schema=False)
