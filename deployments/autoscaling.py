"""How Ray Serve hears what was decided.

Serve asks a policy of each deployment, in its controller, twice a second. Here that policy decides
nothing: it reads the number that :mod:`deployments.control.scaling` has decided for all pools of
all models together, from Redis. Serve has policies for whole applications too, but only for
applications that are deployed from a configuration file (``ServeApplicationSchema``), and they
would run the solver in the controller's loop (docs/adr/0038-autoscaling-policies.md).

Whatever fails leaves the number of replicas as it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from deployments.gateway.feature_store import platform_redis_url
from deployments.pools import Pool
from weir.settings import Settings

POLICY = "deployments.autoscaling:DecidedReplicas"
ZERO_POLICY = "deployments.autoscaling:no_replicas"
#: Where the numbers are: field = the deployment, value = ``NUMBER@SECONDS``.
TARGETS = "weir:autoscaling:targets"
#: What was decided longer ago is no longer followed.
_STALE_S = 120.0
_PERIOD_S = 1.0
_PAUSE_S = 10.0
# Serve's loop waits for the answer.
_TIMEOUT_S = 0.25


class DecidedReplicas:
    """Serve's autoscaling policy of one deployment. Serve shows what it is given here to whoever
    may look, so the URL of an ``external`` Redis is the environment's (``WEIR_REDIS_URL``) where
    that has one."""

    def __init__(self, deployment: str, redis_url: str, external: bool) -> None:
        self._deployment = deployment
        url = os.environ.get("WEIR_REDIS_URL") if external else None
        self._redis = Redis.from_url(
            url or redis_url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
        )
        self._ask_s = 0.0
        # What a platform before this one decided is not for this one.
        self._since_s = time.time()
        self._known: int | None = None

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Replicas wanted, and no state."""
        now_s = time.monotonic()
        if now_s >= self._ask_s:
            try:
                raw: Any = self._redis.hget(TARGETS, self._deployment)
                self._known = decided(raw, time.time(), self._since_s)
                self._ask_s = now_s + _PERIOD_S
            except (RedisError, OSError):
                self._known = None
                self._ask_s = now_s + _PAUSE_S
        wanted = self._known
        return (int(context.target_num_replicas) if wanted is None else wanted), {}


def no_replicas(context: Any) -> tuple[int, dict[str, Any]]:
    """For a model that is configured and not running."""
    return 0, {}


def decided(raw: bytes | None, now_s: float, since_s: float = 0.0) -> int | None:
    """The number that was written; None where none is to be followed: none at all, too old, or from
    before ``since_s``."""
    if raw is None:
        return None
    number, _, at_s = raw.partition(b"@")
    try:
        fresh = now_s - float(at_s) < _STALE_S and float(at_s) >= since_s
        return int(number) if fresh else None
    except ValueError:
        return None


def written(target: int, now_s: float) -> str:
    """As :func:`decided` reads it."""
    return f"{target}@{now_s:.6f}"


def decided_by(pool: Pool, settings: Settings) -> Mapping[str, str | bool]:
    """What :class:`DecidedReplicas` of a pool is given."""
    external = settings.redis.mode == "external"
    url = (
        settings.redis.url or "redis://127.0.0.1" if external else platform_redis_url(settings, {})
    )
    return {"deployment": pool.deployment, "redis_url": url, "external": external}
