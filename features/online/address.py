"""Where the store is: one server, a cluster, or the master that Sentinels name."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace

from weir.errors import ConfigError
from weir.store_url import StoreUrl, parse_store_url


@dataclass(frozen=True, slots=True)
class StoreSecurity:
    """Credentials and certificates that are not in the URL; each one wins over the URL's.

    ``verify`` False: any certificate of the server will do.
    """

    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True

    def context(self, ca_file: str | None) -> ssl.SSLContext:
        """Raises: ConfigError: a file is missing or holds no certificate or key."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file or ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"features.redis_tls: {error}") from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """One server."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None

    @classmethod
    def parse(cls, url: str) -> StoreAddress:
        """The address of a URL that names one server.

        Raises:
            ConfigError: it names none.
        """
        address = parse_address(url)
        if not isinstance(address, StoreAddress):
            raise ConfigError("features.redis_url: expected the URL of one server")
        return address

    def greeting(self) -> list[tuple[bytes, ...]]:
        """The commands that a fresh connection begins with."""
        commands: list[tuple[bytes, ...]] = []
        if self.password is not None:
            user = [self.username.encode()] if self.username else []
            commands.append((b"AUTH", *user, self.password.encode()))
        if self.db:
            commands.append((b"SELECT", b"%d" % self.db))
        return commands


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """The master that Sentinels name. It is asked for again whenever a connection is opened, so a
    failover is followed as soon as the old master is gone or demoted.

    Credentials, database and certificates are those of the master; the Sentinels are spoken to
    with the same certificates and without a password.
    """

    sentinels: tuple[tuple[str, int], ...]
    master: str
    server: StoreAddress

    def at(self, host: str, port: int) -> StoreAddress:
        """The master, where a Sentinel says that it is."""
        return replace(self.server, host=host, port=port)

    def asked(self) -> tuple[StoreAddress, ...]:
        """The Sentinels, in the order in which they are asked."""
        return tuple(StoreAddress(host, port, tls=self.server.tls) for host, port in self.sentinels)


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """A cluster, by some of its nodes; ``server`` has what all of them have in common."""

    seeds: tuple[tuple[str, int], ...]
    server: StoreAddress

    def node(self, host: str, port: int) -> StoreAddress:
        """One of its nodes."""
        return replace(self.server, host=host, port=port)


def parse_address(
    url: str, security: StoreSecurity | None = None, setting: str = "features.redis_url"
) -> StoreAddress | SentinelAddress | ClusterAddress:
    """Where a URL leads. ``setting``: what says so.

    Raises:
        ConfigError: it is no URL of a store, or a certificate cannot be read.
    """
    try:
        parsed = parse_store_url(url)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from None
    server = _server(parsed, security or StoreSecurity())
    if parsed.kind == "cluster":
        return ClusterAddress(parsed.hosts, server)
    if parsed.kind == "sentinel":
        return SentinelAddress(parsed.hosts, parsed.master, server)
    if parsed.path is not None:
        return server
    host, port = parsed.hosts[0]
    return replace(server, host=host, port=port)


def _server(url: StoreUrl, security: StoreSecurity) -> StoreAddress:
    return StoreAddress(
        path=url.path,
        db=url.db,
        username=security.username or url.username,
        password=security.password if security.password is not None else url.password,
        tls=security.context(url.ca_file) if url.tls else None,
    )
