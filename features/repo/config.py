"""Feast's configuration: parquet files offline, Redis online."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from feast import RepoConfig

from features.online import StoreSecurity
from features.repo.definitions import PROJECT
from weir.errors import ConfigError
from weir.store_url import StoreUrl, parse_store_url

WRITE_BATCH_ROWS = 2_000
"""Rows of one Redis pipeline. Without a limit Feast 0.67 writes only the first chunk of a table."""


_TYPES: Final = {"single": "redis", "cluster": "redis_cluster", "sentinel": "redis_sentinel"}


def store_config(
    redis_url: str, data_dir: Path | str, security: StoreSecurity | None = None
) -> RepoConfig:
    """Feast's configuration for the online store at ``redis_url``.

    Args:
        redis_url: as in :mod:`weir.store_url`, sockets excepted, or ``sqlite:///path`` for unit
            tests.
        data_dir: the data folder, see :class:`features.desk_data.DataFolder`.
        security: credentials and certificates that are not in the URL.

    Raises:
        ConfigError: the URL is none of these.
    """
    return RepoConfig(
        project=PROJECT,
        provider="local",
        registry={"registry_type": "file", "path": str(Path(data_dir) / "registry.db")},
        online_store=_online(redis_url, security or StoreSecurity()),
        offline_store={"type": "dask"},
        entity_key_serialization_version=3,
        materialization={"online_write_batch_size": WRITE_BATCH_ROWS},
    )


def _online(url: str, security: StoreSecurity) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and parts.path:
        return {"type": "sqlite", "path": parts.path}
    try:
        parsed = parse_store_url(url)
    except ValueError as error:
        raise ConfigError(f"not the URL of a store: {error}") from None
    if parsed.path is not None:
        raise ConfigError("Feast connects to a host, not to a socket: redis://HOST:PORT/DB")
    words = [f"{host}:{port}" for host, port in parsed.hosts]
    words += [f"{name}={_quoted(value)}" for name, value in _options(parsed, security).items()]
    store = {"type": "redis", "connection_string": ",".join(words)}
    if parsed.kind == "single":
        return store
    store["redis_type"] = _TYPES[parsed.kind]
    if parsed.kind == "sentinel":
        store["sentinel_master"] = parsed.master
    return store


def _quoted(value: Any) -> str:
    # Feast splits the string at every comma before it reads each part as JSON.
    return json.dumps(value).replace(",", "\\u002c")


def _options(url: StoreUrl, security: StoreSecurity) -> dict[str, Any]:
    """redis-py's arguments. Feast reads each as JSON, so that text has to be quoted."""
    options: dict[str, Any] = {}
    if url.kind != "cluster":
        options["db"] = url.db
    if username := security.username or url.username:
        options["username"] = username
    if password := security.password or url.password:
        options["password"] = password
    if not url.tls:
        return options
    options["ssl"] = True
    files = {
        "ssl_ca_certs": security.ca_file or url.ca_file,
        "ssl_certfile": security.cert_file,
        "ssl_keyfile": security.key_file,
    }
    options |= {name: file for name, file in files.items() if file is not None}
    if not security.verify:
        options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    return options
