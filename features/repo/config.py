"""Feast's configuration: parquet files offline, Redis online."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from feast import RepoConfig

from features.repo.definitions import PROJECT
from weir.errors import ConfigError

WRITE_BATCH_ROWS = 2_000
"""Rows of one Redis pipeline. Without a limit Feast 0.67 writes only the first chunk of a table."""


def store_config(redis_url: str, data_dir: Path | str) -> RepoConfig:
    """Feast's configuration for the online store at ``redis_url``.

    Args:
        redis_url: ``redis://[[user:]password@]host:port/db``, ``rediss://`` for TLS, or
            ``sqlite:///path`` for unit tests.
        data_dir: the data folder, see :class:`features.desk_data.DataFolder`.

    Raises:
        ConfigError: the URL is none of these.
    """
    return RepoConfig(
        project=PROJECT,
        provider="local",
        registry={"registry_type": "file", "path": str(Path(data_dir) / "registry.db")},
        online_store=_online(redis_url),
        offline_store={"type": "dask"},
        entity_key_serialization_version=3,
        materialization={"online_write_batch_size": WRITE_BATCH_ROWS},
    )


def _online(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and parts.path:
        return {"type": "sqlite", "path": parts.path}
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ConfigError(f"not a Redis URL (redis://host:port/db): {_without_password(url)}")
    words = [f"{parts.hostname}:{parts.port or 6379}", f"db={parts.path.strip('/') or 0}"]
    # Feast reads the values as JSON where it can, so that a numeric password would become a number.
    if parts.username:
        words.append(f'username="{unquote(parts.username)}"')
    if parts.password:
        words.append(f'password="{unquote(parts.password)}"')
    if parts.scheme == "rediss":
        words.append("ssl=true")
    return {"type": "redis", "connection_string": ",".join(words)}


def _without_password(url: str) -> str:
    return url if "@" not in url else f"***@{url.rpartition('@')[2]}"
