"""Asking a store about itself: which server is the master, which node holds which slots."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from features.online.address import ClusterAddress, SentinelAddress, StoreAddress
from features.online.connection import RedisConnection, StoreFailedError, connect

N_SLOTS = 16_384


@dataclass(frozen=True, slots=True)
class SlotRange:
    """Slots ``first`` to ``last``, both included, and the node that answers for them."""

    first: int
    last: int
    node: tuple[str, int]


async def open_connection(address: StoreAddress, timeout_s: float) -> RedisConnection:
    """A connection that has said its greeting. Connecting and greeting each have ``timeout_s``.

    Raises:
        OSError, TimeoutError, StoreFailedError: there is no such server, or it refuses.
    """
    async with asyncio.timeout(timeout_s):
        connection = await connect(address)
    try:
        async with asyncio.timeout(timeout_s):
            for words in address.greeting():
                await connection.call(*words)
    except BaseException:
        connection.abort()
        raise
    return connection


async def resolve(address: StoreAddress | SentinelAddress, timeout_s: float) -> StoreAddress:
    """The server itself, or the master that the first Sentinel names that answers.

    Raises:
        StoreFailedError: no Sentinel answers and knows the master.
    """
    if isinstance(address, StoreAddress):
        return address
    problems = []
    for sentinel in address.asked():
        try:
            connection = await open_connection(sentinel, timeout_s)
        except (OSError, TimeoutError, StoreFailedError) as error:
            problems.append(f"{sentinel.host}:{sentinel.port}: {error or 'no answer in time'}")
            continue
        try:
            async with asyncio.timeout(timeout_s):
                name = address.master.encode()
                found = await connection.call(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name)
                host, port = found
                return address.at(_text(host), int(port))
        except (TimeoutError, StoreFailedError, TypeError, ValueError) as error:
            problems.append(
                f"{sentinel.host}:{sentinel.port} names no master {address.master!r} ({error})"
            )
        finally:
            connection.abort()
    raise StoreFailedError(f"no Sentinel helps: {'; '.join(problems)}")


async def cluster_slots(address: StoreAddress, timeout_s: float) -> list[SlotRange]:
    """Which master answers for which slots, from one node of the cluster.

    Raises:
        OSError, TimeoutError, StoreFailedError: the node does not say.
    """
    connection = await open_connection(address, timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            reply = await connection.call(b"CLUSTER", b"SLOTS")
        return [_range(entry, address.host) for entry in reply]
    except (TypeError, ValueError, IndexError) as error:
        raise StoreFailedError(f"CLUSTER SLOTS: {error}") from None
    finally:
        connection.abort()


async def cluster_map(
    address: ClusterAddress, known: tuple[tuple[str, int], ...], timeout_s: float
) -> list[SlotRange]:
    """The slots, from the first node that says: those of the settings, then those that are known.

    Raises:
        StoreFailedError: no node does.
    """
    problems = []
    for host, port in dict.fromkeys((*address.seeds, *known)):
        try:
            return await cluster_slots(address.node(host, port), timeout_s)
        except (OSError, TimeoutError, StoreFailedError) as error:
            problems.append(f"{host}:{port}: {error or 'no answer in time'}")
    raise StoreFailedError(f"no node of the cluster answers: {'; '.join(problems)}")


def _range(entry: Any, asked_host: str) -> SlotRange:
    first, last, (host, port, *_) = entry[0], entry[1], entry[2]
    # A node that does not know its own address says nothing: it is the one that was asked.
    return SlotRange(int(first), int(last), (_text(host) or asked_host, int(port)))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)
