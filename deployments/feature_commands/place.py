"""Where the features are: the data folder, and the Redis that they are read from."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployments.redis_server import RedisServer
from features.desk_data import DataFolder
from weir.cli.exits import CommandError
from weir.cli.state import State
from weir.settings import Settings, load_settings

if TYPE_CHECKING:
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
            if urlsplit(url).scheme in ("redis", "rediss") and not _answers(url):
                raise CommandError(
                    f"no Redis answers at {urlsplit(url).hostname}:{urlsplit(url).port or 6379}"
                )
            yield url
            return
        folder = self.state.folder / "redis"
        server = RedisServer(folder, self.settings().redis.port, folder / "redis.log")
        if _answers(server.url):
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

            yield FeatureRepository(url, self.data)

    def _configured_url(self) -> str | None:
        settings = self.settings()
        own = getattr(getattr(settings, "features", None), "redis_url", None)
        if own is not None:
            return str(own)
        if settings.redis.mode == "external":
            return os.environ.get("WEIR_REDIS_URL") or settings.redis.url
        return None


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    address = (parts.hostname or "127.0.0.1", parts.port or 6379)
    with contextlib.suppress(OSError), socket.create_connection(address, 1.0):
        return True
    return False
