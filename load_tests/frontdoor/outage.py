"""Light, steady traffic beside a kill: what it costs, in seconds without service."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import httpx

_EVERY_S = 0.02
_REQUEST_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Outage:
    """``seconds``: from the kill to the end of the last request that failed; 0 if none did.
    ``statuses``: of the failed ones, 0 where there was no answer."""

    seconds: float
    requests: int
    failed: int
    slowest_s: float
    statuses: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Client:
    """How to reach the platform: ``url`` without /v1, a tenant's ``key``, a ``model``."""

    url: str
    key: str
    model: str

    def ask(self, http: httpx.Client, tokens: int = 1) -> int:
        """One short request's status; 0 for no answer."""
        try:
            return http.post(self._chat, json=self._body(tokens), headers=self._headers).status_code
        except httpx.HTTPError:
            return 0

    def stream(self, tokens: int) -> tuple[float, str]:
        """The longest time between two lines of one long stream, and its last line or the error
        that ended it."""
        longest_s, before_s, last = 0.0, None, ""
        body = self._body(tokens) | {"stream": True, "ignore_eos": True}
        try:
            with (
                httpx.Client(trust_env=False, timeout=60) as http,
                http.stream("POST", self._chat, json=body, headers=self._headers) as answer,
            ):
                for line in filter(None, answer.iter_lines()):
                    now_s, last = time.monotonic(), line
                    longest_s = max(longest_s, now_s - (before_s or now_s))
                    before_s = now_s
        except httpx.HTTPError as error:
            last = repr(error)
        return longest_s, last

    @property
    def _chat(self) -> str:
        return f"{self.url}/v1/chat/completions"

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def _body(self, tokens: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": "Where is my order?"}]
        return {"model": self.model, "messages": messages, "max_tokens": tokens}


class LongStream:
    """One stream in a thread, to be there while something is killed."""

    def __init__(self, client: Client, tokens: int) -> None:
        self._result: tuple[float, str] = (0.0, "")
        self._client, self._tokens = client, tokens
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(120)

    @property
    def whole(self) -> bool:
        """Whether it ended as it should. To be asked after the context."""
        return self._result[1] == "data: [DONE]"

    @property
    def longest_gap_s(self) -> float:
        """Between two of its events. To be asked after the context."""
        return self._result[0]

    def _run(self) -> None:
        self._result = self._client.stream(self._tokens)


def measure(
    client: Client, kill: Callable[[], None], calm_s: float = 4.0, limit_s: float = 60.0
) -> Outage:
    """Ask all the time, on a connection that is kept; after a second kill; go on until nothing has
    failed for ``calm_s``, or ``limit_s`` have passed."""
    with httpx.Client(trust_env=False, timeout=_REQUEST_TIMEOUT_S) as http:
        _ask_for(client, http, 1.0)
        kill()
        killed = last_failed = time.monotonic()
        slowest, count, statuses = 0.0, 0, []
        while (now := time.monotonic()) - last_failed < calm_s and now - killed < limit_s:
            status = client.ask(http)
            ended = time.monotonic()
            slowest, count = max(slowest, ended - now), count + 1
            if status != 200:
                statuses.append(status)
                last_failed = ended
            time.sleep(_EVERY_S)
    kinds = tuple(sorted(set(statuses)))
    return Outage(last_failed - killed, count, len(statuses), slowest, kinds)


def _ask_for(client: Client, http: httpx.Client, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        client.ask(http)
        time.sleep(_EVERY_S)
