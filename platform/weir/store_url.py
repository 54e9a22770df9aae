"""URLs of Redis and of what speaks its protocol: one server, a cluster, or behind Sentinels.

====================================================  ==========================================
``redis://[user:password@]host:port/db``              one server
``redis+cluster://[user:password@]host:port,…``       a cluster; any of its nodes are named
``redis+sentinel://[…@]host:port,…/master/db``        the master of that name, asked of Sentinels
``unix://[user:password@]/path?db=N``                 one server, over a socket of the machine
====================================================  ==========================================

``rediss`` instead of ``redis`` means TLS; ``valkey`` and ``valkeys`` mean the same as ``redis`` and
``rediss``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote

StoreKind = Literal["single", "cluster", "sentinel"]

EXPECTED: Final = (
    "expected redis://HOST:PORT/DB, redis+cluster://HOST:PORT,HOST:PORT, "
    "redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DB or unix:///PATH; rediss for TLS, valkey and "
    "valkeys as redis and rediss"
)
_TLS: Final[Mapping[str, bool]] = {
    "redis": False,
    "valkey": False,
    "rediss": True,
    "valkeys": True,
}
_PORTS: Final[Mapping[StoreKind, int]] = {"single": 6379, "cluster": 6379, "sentinel": 26379}
_OPTIONS: Final = frozenset({"db", "ssl_ca_certs"})


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """What a URL says. ``hosts`` is empty where ``path`` is a socket's; ``master`` is the name that
    Sentinels know; ``ca_file`` has the certificates that a server's is checked against."""

    kind: StoreKind
    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    db: int = 0
    master: str = ""
    tls: bool = False
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None

    @property
    def shown(self) -> str:
        """Where it is, for messages, without a password."""
        return self.path or ",".join(f"{host}:{port}" for host, port in self.hosts)


def parse_store_url(url: str) -> StoreUrl:
    """Read a URL.

    Raises:
        ValueError: it is none of those above. The message does not quote a password.
    """
    scheme, separator, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    options = _options(query)
    login, _, place = rest.rpartition("@")
    username, colon, password = login.partition(":")
    secrets = (unquote(username) or None, unquote(password) if colon else None)
    if scheme == "unix" and separator and place.startswith("/"):
        return StoreUrl(
            "single", (), unquote(place), _db(options.get("db", "0")), "", False, *secrets
        )
    base, _, form = scheme.partition("+")
    if not separator or base not in _TLS or form not in ("", "cluster", "sentinel"):
        raise ValueError(EXPECTED)
    kind: StoreKind = "cluster" if form == "cluster" else "sentinel" if form else "single"
    hosts, _, path = place.partition("/")
    master, db = _path(kind, path, options)
    return StoreUrl(
        kind,
        _hosts(hosts, kind),
        None,
        db,
        master,
        _TLS[base],
        *secrets,
        options.get("ssl_ca_certs"),
    )


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := next((name for name in options if name not in _OPTIONS), None):
        raise ValueError(f"unknown option {unknown!r}; known: {', '.join(sorted(_OPTIONS))}")
    return options


def _path(kind: StoreKind, path: str, options: Mapping[str, str]) -> tuple[str, int]:
    """The master's name, where there is one, and the number of the database."""
    parts = [unquote(part) for part in path.split("/") if part]
    master = ""
    if kind == "sentinel":
        if not parts:
            raise ValueError("the master's name is missing: redis+sentinel://HOST:PORT/MASTER/DB")
        master = parts.pop(0)
    if len(parts) > 1:
        raise ValueError(EXPECTED)
    db = _db(parts[0] if parts else options.get("db", "0"))
    if kind == "cluster" and db:
        raise ValueError("a cluster has no database other than 0")
    return master, db


def _db(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise ValueError(f"a database is a number, not {text[:32]!r}")
    return int(text)


def _hosts(text: str, kind: StoreKind) -> tuple[tuple[str, int], ...]:
    hosts = tuple(_host(each, _PORTS[kind]) for each in text.split(","))
    if kind == "single" and len(hosts) > 1:
        raise ValueError("several hosts are for redis+cluster:// and redis+sentinel://")
    return hosts


def _host(text: str, default_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default_port)
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise ValueError(f"a port is a number from 1 to 65535, not {port[:32]!r}")
    return host, int(port)
