"""Where the features are: the data folder, and the Redis that they are read from."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.gateway.feature_store import store_security, tail_url
from deployments.redis_server import RedisServer
from features.desk_data import DataFolder
from weir.cli.exits import CommandError, ExitCode
from weir.cli.state import State
from weir.settings import Settings, load_settings
from weir.settings.references import DEMO_TENANT
from weir.store_url import StoreUrl, parse_store_url

if TYPE_CHECKING:
    from features.online import StoreSecurity
    from features.repo import FeatureRepository


@dataclass(frozen=True, slots=True)
class Place:
    """``redis_url`` None: the platform's own Redis, by its settings."""

    state: State
    data: DataFolder
    redis_url: str | None = None

    @classmethod
    def of(cls, data: Path | None, redis_url: str | None) -> Place:
        """From a command's options; the data lies in the state folder unless said otherwise."""
        state = State.from_environment()
        return cls(state, DataFolder((data or state.folder / "features").absolute()), redis_url)

    def settings(self) -> Settings:
        """Those of the last ``weir up``; the laptop profile's before the first one."""
        file = self.state.settings_file
        return load_settings("laptop", file if file.is_file() else None)

    def only_tenant(self) -> str:
        """The tenant that an entity id alone belongs to.

        Raises:
            CommandError: the settings name several.
        """
        tenants = [tenant.id for tenant in self.settings().tenants] or [DEMO_TENANT]
        if len(tenants) > 1:
            raise CommandError(
                f"whose entity? The settings name the tenants {', '.join(tenants)}",
                ExitCode.USAGE,
                hint="give TENANT/ID, or the id with --tenant",
            )
        return tenants[0]

    @contextlib.contextmanager
    def online_url(self) -> Iterator[str]:
        """The URL of a Redis that answers.

        The embedded one is started for as long as it is needed if no platform runs it: what is
        written stays in its folder, and the next ``weir up`` finds it.

        Raises:
            CommandError: nothing answers.
        """
        url = self.redis_url or self._configured_url()
        if url is not None:
            parsed = _parsed(url)
            if parsed is not None and not _answers(parsed):
                raise CommandError(f"no Redis answers at {parsed.shown}")
            yield url
            return
        folder = self.state.folder / "redis"
        server = RedisServer(folder, self.settings().redis.port, folder / "redis.log")
        if _answers(parse_store_url(server.url)):
            yield server.url
            return
        server.start()
        try:
            yield server.url
        finally:
            server.stop()

    @contextlib.contextmanager
    def repository(self) -> Iterator[FeatureRepository]:
        """Feast over the data folder and a Redis that answers."""
        with self.online_url() as url:
            from features.repo import FeatureRepository

            yield FeatureRepository(url, self.data, self.security())

    def security(self) -> StoreSecurity | None:
        """Credentials and certificates that the settings give for the store; those of a store named
        on the command line are in its URL."""
        return None if self.redis_url else store_security(self.settings(), os.environ)

    def queue_url(self, store_url: str) -> str | None:
        """Where the queue of long-tail entities is, given the store in use; None: there is none."""
        if _parsed(store_url) is None:
            return None
        if self.redis_url or self._configured_url() is None:
            return store_url
        return tail_url(self.settings(), os.environ)

    def _configured_url(self) -> str | None:
        settings = self.settings()
        own = os.environ.get("WEIR_FEATURES_REDIS_URL") or settings.features.redis_url
        if own:
            return own
        if settings.redis.mode == "external":
            return os.environ.get("WEIR_REDIS_URL") or settings.redis.url
        return None


def _parsed(url: str) -> StoreUrl | None:
    """None: another kind of store than Redis, which unit tests use.

    Raises:
        CommandError: no URL of a store.
    """
    if url.startswith("sqlite:"):
        return None
    try:
        return parse_store_url(url)
    except ValueError as error:
        raise CommandError(f"--redis: {error}", ExitCode.USAGE) from None


def _answers(url: StoreUrl) -> bool:
    """Whether any of the store's servers accepts a connection."""
    if url.path is not None:
        return Path(url.path).exists()
    for address in url.hosts:
        with contextlib.suppress(OSError), socket.create_connection(address, 1.0):
            return True
    return False
