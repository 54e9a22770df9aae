"""An issuer's public keys (JWKS), kept fresh in the background.

A request only ever looks into what is in memory. A token with an unknown key id asks for the keys
to be fetched again, but however many ask, there is at least ``min_pause_s`` between two fetches of
one set: nobody who invents key ids makes weir call the issuer more often.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import jwt

from weir.tokens import KeysById, KeysUnknownError, TokenError, parse_key_set

_LOG = logging.getLogger("weir.tokens")
_MAX_BYTES: Final = 256 * 1024

Fetch = Callable[[], bytes]
"""Fetches the set, in a thread. Raises OSError, httpx.HTTPError or ValueError."""


@dataclass(frozen=True, slots=True)
class KeySetSettings:
    """How often the keys are fetched: regularly, and at most when tokens ask for it."""

    algorithms: tuple[str, ...] = ("RS256", "ES256")
    refresh_s: float = 300.0
    min_pause_s: float = 10.0
    timeout_s: float = 5.0


class KeySet:
    """The keys of one issuer. Build it anywhere; :meth:`start` needs a running loop."""

    def __init__(self, fetch: Fetch, origin: str, settings: KeySetSettings) -> None:
        """``origin`` is what the log calls it."""
        self._fetch = fetch
        self._origin = origin
        self._settings = settings
        self._keys: KeysById = {}
        self._wanted = asyncio.Event()
        self._loaded = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.fetches = 0

    def load(self) -> None:
        """Fetch now and wait for it: where waiting is all right.

        Raises:
            OSError, ValueError, httpx.HTTPError: there is no usable set.
        """
        self.fetches += 1
        self._keys = parse_key_set(self._fetch(), self._settings.algorithms)
        self._loaded.set()

    def find(self, algorithm: str, key_id: str | None) -> jwt.PyJWK:
        """The key of that id; without an id the only key there is for the algorithm."""
        settings = self._settings
        if algorithm not in settings.algorithms:
            raise TokenError(f"not signed with {' or '.join(settings.algorithms)}")
        if not self._keys:
            self._wanted.set()
            raise KeysUnknownError("the issuer's keys are not known yet")
        if key_id is None:
            fitting = [key for (_, name), key in self._keys.items() if name == algorithm]
            if len(fitting) == 1:
                return fitting[0]
            raise TokenError("the token names no key (kid)")
        key = self._keys.get((key_id, algorithm))
        if key is None:
            self._wanted.set()
            raise TokenError("signed with a key that the issuer has not published")
        return key

    def start(self) -> None:
        """Begin to keep the keys fresh."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_fresh())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def wait_until_loaded(self) -> None:
        """For tests; requests never wait for it."""
        await self._loaded.wait()

    async def _keep_fresh(self) -> None:
        while True:
            self._wanted.clear()
            self.fetches += 1
            try:
                data = await asyncio.to_thread(self._fetch)
                self._keys = parse_key_set(data, self._settings.algorithms)
                self._loaded.set()
            except (OSError, ValueError, httpx.HTTPError) as error:
                _LOG.warning("keys of %s: %s; those known are kept", self._origin, error)
            await asyncio.sleep(self._settings.min_pause_s)
            left_s = max(0.0, self._settings.refresh_s - self._settings.min_pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wanted.wait()


def from_file(path: Path, settings: KeySetSettings) -> KeySet:
    """Keys in a file, which may be replaced while weir runs."""

    def fetch() -> bytes:
        return path.read_bytes()

    return KeySet(fetch, str(path), settings)


def from_url(url: str, settings: KeySetSettings) -> KeySet:
    """Keys behind a URL. Redirects are not followed."""

    def fetch() -> bytes:
        with (
            httpx.Client(timeout=settings.timeout_s) as client,
            client.stream("GET", url, headers={"accept": "application/json"}) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"status {response.status_code}")
            data = b""
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > _MAX_BYTES:
                    raise ValueError(f"more than {_MAX_BYTES} bytes")
            return data

    return KeySet(fetch, url, settings)
