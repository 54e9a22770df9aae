"""``/metrics`` as OpenMetrics, for who asks for it: the one format that has exemplars, which lead
from a histogram's bucket to a trace."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
_MEDIA_TYPE = "application/openmetrics-text"
_END = "# EOF\n"


def wants_openmetrics(accept: str | None) -> bool:
    """Whether a client takes it. Prometheus does, and prefers it."""
    return accept is not None and _MEDIA_TYPE in accept


def openmetrics_page(registry: CollectorRegistry, engines: str) -> str:
    """The registry's metrics, and those of ``engines``, which come in Prometheus' older format."""
    own: str = generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    return own.removesuffix(_END) + "".join(f"{line}\n" for line in _lines(engines)) + _END


def _lines(text: str) -> Iterator[str]:
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
        family = family.removesuffix("_total")
        if keyword == "HELP":
            rest = rest.replace('"', '\\"')
        elif rest == "untyped":
            rest = "unknown"
        yield f"# {keyword} {family} {rest}"


def _sample_name(line: str) -> str:
    return line.partition("{")[0].partition(" ")[0]
