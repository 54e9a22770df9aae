"""Where the features and the queue of long-tail entities are: settings to URLs and connections."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from features.online import (
    ClusterAddress,
    ClusterLink,
    StoreAddress,
    StoreLink,
    StoreSecurity,
    StoreState,
    parse_address,
)
from weir.errors import ConfigError
from weir.settings import Settings


def store_url(settings: Settings, environment: Mapping[str, str]) -> str:
    """Where the features are: ``WEIR_FEATURES_REDIS_URL``, ``features.redis_url``, or else the
    platform's Redis.

    Raises:
        ConfigError: the platform's Redis is external and has no URL.
    """
    own = environment.get("WEIR_FEATURES_REDIS_URL") or settings.features.redis_url
    return own or platform_redis_url(settings, environment)


def tail_url(settings: Settings, environment: Mapping[str, str]) -> str:
    """Where the queue of long-tail entities is: beside the features if that is one server that the
    URL alone can open, else in the platform's Redis.

    Its scripts take several keys at once, which a cluster spreads over its nodes.

    Raises:
        ConfigError: the platform's Redis is external and has no URL.
    """
    features = settings.features
    if not features.enabled:
        return "redis://"  # a queue that nothing is put into
    url = store_url(settings, environment)
    beside = url.startswith(("redis://", "rediss://", "unix://"))
    if beside and features.redis_password_env is None and features.redis_tls is None:
        return url
    return platform_redis_url(settings, environment)


def platform_redis_url(settings: Settings, environment: Mapping[str, str]) -> str:
    """Where the platform's Redis is.

    Raises:
        ConfigError: it is external and has no URL.
    """
    redis = settings.redis
    if redis.mode == "embedded":
        return f"redis://127.0.0.1:{redis.port}/0"
    url = environment.get("WEIR_REDIS_URL") or redis.url
    if not url:
        raise ConfigError("redis.url: mode: external needs it, or WEIR_REDIS_URL")
    return url


def build_link(
    settings: Settings,
    environment: Mapping[str, str],
    on_change: Callable[[StoreState], None] = lambda state: None,
) -> StoreLink | ClusterLink:
    """The connection, or the connections, to the store that the settings describe, not started.

    Raises:
        ConfigError: its URL, its certificates or its password cannot be used.
    """
    features = settings.features
    if not features.enabled:
        # A link is built even where nothing is looked up; it is never used.
        return StoreLink(StoreAddress(), on_change=on_change)
    security = store_security(settings, environment)
    address = parse_address(store_url(settings, environment), security)
    if isinstance(address, ClusterAddress):
        return ClusterLink(address, on_change=on_change)
    return StoreLink(address, on_change=on_change)


def store_security(settings: Settings, environment: Mapping[str, str]) -> StoreSecurity:
    """Credentials and certificates of the features' store.

    Raises:
        ConfigError: the environment does not have the password that the settings name.
    """
    features = settings.features
    password = None
    if features.redis_password_env is not None:
        password = environment.get(features.redis_password_env)
        if not password:
            raise ConfigError(
                f"features.redis_password_env: the environment has no {features.redis_password_env}"
            )
    tls = features.redis_tls
    if tls is None:
        return StoreSecurity(features.redis_username, password)
    return StoreSecurity(
        features.redis_username, password, tls.ca_file, tls.cert_file, tls.key_file, tls.verify
    )
