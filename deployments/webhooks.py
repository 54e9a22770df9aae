"""Tells tenants' webhooks which steps of their budgets were reached.

The gateways' script writes a step down once a month, in the same stroke in which it is reached
(:class:`weir.accounts.StepReached`); it stays in Redis until its receiver has taken it, or it is
given up. One process sends, so a step is told at least once: again after an answer that was lost,
with the same ``webhook-id``. Headers and signature are those of https://www.standardwebhooks.com.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import aiohttp
import orjson
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from weir.accounts import AccountKeys, StepReached, step_of
from weir.cost import usd_of
from weir.store_url import parse_store_url
from weir.tenancy import Tenant

_LOG = logging.getLogger("weir.webhooks")
_AWAY: Final = (RedisError, OSError, TimeoutError)
_AGAIN: Final = frozenset({408, 425, 429})
_AT_A_TIME: Final = 8


@dataclass(frozen=True, slots=True)
class Persistence:
    """How long a receiver is tried. Pauses double from ``pause_s`` to ``most_pause_s`` and are
    shortened at random by up to half; a step is given up once it was reached ``give_up_s`` ago."""

    period_s: float = 2.0
    timeout_s: float = 10.0
    pause_s: float = 2.0
    most_pause_s: float = 600.0
    give_up_s: float = 3 * 86_400.0


@dataclass(slots=True)
class _Try:
    """``next_s``: on the loop's clock."""

    next_s: float
    pause_s: float
    under_way: bool = False


@dataclass(slots=True)
class _Counts:
    sent: int = 0
    failed: int = 0
    given_up: int = 0


@dataclass(frozen=True, slots=True)
class _Due:
    step: StepReached
    url: str
    field: str


class BudgetWebhooks:
    """``tenants``: all of them, as they are now. ``secret``: what messages are signed with, if
    anything. ``wall_clock``: seconds since the epoch."""

    def __init__(
        self,
        redis: Redis | RedisCluster,
        session: aiohttp.ClientSession,
        tenants: Callable[[], Awaitable[Iterable[Tenant]]],
        wall_clock: Callable[[], float],
        *,
        secret: bytes | None = None,
        persistence: Persistence | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._redis = redis
        self._session = session
        self._tenants = tenants
        self._wall_clock = wall_clock
        self._secret = secret
        self._persistence = persistence or Persistence()
        self._rng = rng or random.Random()
        self._clock = asyncio.get_running_loop().time
        self._tries: dict[str, _Try] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts = _Counts()

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except _AWAY as error:
                    _LOG.warning("accounts cannot be read", extra={"reason": str(error)})
                await asyncio.sleep(self._persistence.period_s)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def look(self) -> None:
        """Begin to send every step that is due now.

        Raises:
            RedisError, OSError, TimeoutError: the accounts cannot be read.
        """
        seen: set[str] = set()
        for tenant in await self._tenants():
            if tenant.budget is None:
                continue
            for due in await self._due(tenant.id, tenant.budget.webhook_url):
                seen.add(due.step.id)
                tried = self._tries.setdefault(due.step.id, self._fresh())
                ready = not tried.under_way and tried.next_s <= self._clock()
                if ready and len(self._tasks) < _AT_A_TIME:
                    tried.under_way = True
                    task = asyncio.get_running_loop().create_task(self._send(due, tried))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        for gone in set(self._tries) - seen:
            if not self._tries[gone].under_way:
                del self._tries[gone]

    def _fresh(self) -> _Try:
        return _Try(self._clock(), self._persistence.pause_s)

    async def _due(self, tenant: str, url: str | None) -> list[_Due]:
        """The tenant's steps that nobody was told of. Those that nobody is to be told of are
        forgotten."""
        steps = AccountKeys.of(tenant).steps
        listed = await cast("Awaitable[Mapping[bytes, bytes]]", self._redis.hgetall(steps))
        found = []
        for name, written in listed.items():
            field_ = name.decode("utf-8", "replace")
            try:
                step = step_of(tenant, field_, written)
            except ValueError as error:
                _LOG.error("a step cannot be read", extra={"reason": str(error)})
                await self._forget(tenant, field_)
                continue
            if url is None:
                await self._forget(tenant, field_)
            elif self._wall_clock() - step.at_ms / 1000 > self._persistence.give_up_s:
                self._give_up(step, "its receiver was tried for long enough")
                await self._forget(tenant, field_)
            else:
                found.append(_Due(step, url, field_))
        return found

    async def _send(self, due: _Due, tried: _Try) -> None:
        status = await self._post(due)
        if 200 <= status < 300:
            self.counts.sent += 1
        elif 400 <= status < 500 and status not in _AGAIN:
            self._give_up(due.step, f"its receiver answered {status}")
        else:
            self.counts.failed += 1
            tried.next_s = self._clock() + tried.pause_s * self._rng.uniform(0.5, 1.0)
            tried.pause_s = min(2 * tried.pause_s, self._persistence.most_pause_s)
            tried.under_way = False
            return
        tried.next_s = math.inf  # a look that is under way may have read it before
        try:
            await self._forget(due.step.tenant, due.field)
        except _AWAY:  # it is sent once more, and has the same id
            tried.next_s = self._clock() + tried.pause_s
        tried.under_way = False

    async def _post(self, due: _Due) -> int:
        """The status of the receiver's answer; 0 where there is none. Redirects are none: where the
        message goes is what the settings say."""
        body = orjson.dumps(message_of(due.step))
        headers = signed_headers(due.step.id, int(self._wall_clock()), body, self._secret)
        timeout = aiohttp.ClientTimeout(total=self._persistence.timeout_s)
        try:
            async with self._session.post(
                due.url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                return answer.status
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            told = {"tenant": due.step.tenant, "reason": str(error) or "no answer in time"}
            _LOG.warning("a webhook cannot be reached", extra=told)
            return 0

    async def _forget(self, tenant: str, field_: str) -> None:
        await cast("Awaitable[int]", self._redis.hdel(AccountKeys.of(tenant).steps, field_))

    def _give_up(self, step: StepReached, reason: str) -> None:
        self.counts.given_up += 1
        _LOG.error("a step is told to nobody", extra={"step": step.id, "reason": reason})


def message_of(step: StepReached) -> dict[str, Any]:
    """What a receiver is sent. Amounts are decimal text."""
    return {
        "id": step.id,
        "type": "budget.step_reached",
        "timestamp": step.at_ms // 1000,
        "data": {
            "tenant": step.tenant,
            "month": step.month,
            "percent": step.percent,
            "spent_usd": f"{usd_of(step.spent_nano_usd).normalize():f}",
            "budget_usd": f"{usd_of(step.budget_nano_usd).normalize():f}",
        },
    }


def signed_headers(
    message_id: str, timestamp_s: int, body: bytes, secret: bytes | None
) -> dict[str, str]:
    """Who can tell that the message is weir's: whoever has the secret."""
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
    }
    if secret is not None:
        signed = b"%b.%d.%b" % (message_id.encode(), timestamp_s, body)
        digest = hmac.new(secret, signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def accounts_client(url: str) -> Redis | RedisCluster:
    """A client of the Redis in which accounts are kept, for readers beside the gateways.

    Raises:
        ValueError: the URL is none of :mod:`weir.store_url`.
    """
    parsed = parse_store_url(url)
    login: dict[str, Any] = {"username": parsed.username, "password": parsed.password}
    security: dict[str, Any] = {"ssl": True} if parsed.tls else {}
    if parsed.tls and parsed.ca_file is not None:
        security["ssl_ca_certs"] = parsed.ca_file
    if parsed.path is not None:
        return Redis(unix_socket_path=parsed.path, db=parsed.db, **login)
    if parsed.kind == "sentinel":
        sentinel: Any = Sentinel
        asked = sentinel(list(parsed.hosts), **security)
        return cast("Redis", asked.master_for(parsed.master, db=parsed.db, **login, **security))
    host, port = parsed.hosts[0]
    if parsed.kind == "cluster":
        return RedisCluster(host=host, port=port, **login, **security)
    return Redis(host=host, port=port, db=parsed.db, **login, **security)


__all__ = ["BudgetWebhooks", "Persistence", "accounts_client", "message_of", "signed_headers"]
