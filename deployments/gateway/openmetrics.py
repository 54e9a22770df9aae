"""``/metrics`` in the older format of Prometheus, and as OpenMetrics for who asks for it: the one
that has exemplars, which lead from a histogram's bucket to a trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import exposition

_OPENMETRICS = "application/openmetrics-text"
_END = "# EOF\n"


class Form(Protocol):
    """How the page is written. ``end``: its last line."""

    media_type: str
    end: str

    def write(self, registry: CollectorRegistry) -> str:
        """The registry's metrics, without the end."""
        ...

    def read(self, text: str) -> str:
        """What another process has written, in this form or the older one; without the end."""
        ...


class _Older:
    media_type = prometheus_client.CONTENT_TYPE_LATEST
    end = ""

    def write(self, registry: CollectorRegistry) -> str:
        return prometheus_client.generate_latest(registry).decode()

    def read(self, text: str) -> str:
        return text


class _OpenMetrics:
    media_type = exposition.CONTENT_TYPE_LATEST
    end = _END

    def write(self, registry: CollectorRegistry) -> str:
        text: str = exposition.generate_latest(registry).decode()  # type: ignore[no-untyped-call]
        return text.removesuffix(_END)

    def read(self, text: str) -> str:
        if text.endswith(_END):
            return text.removesuffix(_END)
        return "".join(f"{line}\n" for line in _newer(text))


OLDER: Form = _Older()
OPENMETRICS: Form = _OpenMetrics()


def form_for(accept: str | None) -> Form:
    """The one that a client gets. Prometheus asks for OpenMetrics."""
    return OPENMETRICS if accept is not None and _OPENMETRICS in accept else OLDER


def _newer(text: str) -> Iterator[str]:
    """The same samples. A counter's family is named without ``_total``, and when a counter was
    created is no family of its own."""
    for line in text.splitlines():
        if not line.startswith("# "):
            if not _sample_name(line).endswith("_created"):
                yield line
            continue
        _, keyword, family, rest = [*line.split(" ", 3), ""][:4]
        if family.endswith("_created"):
            continue
        if keyword == "HELP":
            rest = rest.replace('"', '\\"')
        elif rest == "untyped":
            rest = "unknown"
        yield f"# {keyword} {family.removesuffix('_total')} {rest}"


def _sample_name(line: str) -> str:
    return line.partition("{")[0].partition(" ")[0]
