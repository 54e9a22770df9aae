"""Serve's server for calls between deployments binds to loopback in weir's replicas."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from deployments.loopback import on_loopback

# Serve's own use of pydantic warns while it is imported.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def serve_replica() -> ModuleType:
    return importlib.import_module("ray.serve._private.replica")


@pytest.fixture
def bound(serve_replica: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that Serve's own function was asked to bind."""
    addresses: list[str] = []

    def bind(server: Any, address: str) -> int:
        addresses.append(address)
        return 7

    monkeypatch.setattr(serve_replica, "add_port_to_grpc_server", bind)
    return addresses


class Plain:
    def __init__(self, word: str) -> None:
        self.word = word


class Awaited:
    async def __init__(self, word: str) -> None:  # type: ignore[misc]  # Serve awaits them
        self.word = word


@pytest.mark.parametrize("kind", [Plain, Awaited])
async def test_a_replica_binds_to_loopback(
    kind: type, bound: list[str], serve_replica: ModuleType
) -> None:
    made = on_loopback(kind)
    assert made.__name__ == kind.__name__
    for _ in range(2):  # a second replica in the process changes nothing more
        instance = made.__new__(made)
        start: Callable[..., Any] = instance.__init__
        await start("word")
        assert instance.word == "word"
    assert serve_replica.add_port_to_grpc_server(None, "[::]:0") == 7
    assert bound == ["127.0.0.1:0"]
