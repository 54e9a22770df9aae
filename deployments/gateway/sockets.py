"""Replicas over real networks: a WebSocket per replica, and its KV events over ZeroMQ."""

from __future__ import annotations

import asyncio
import logging

import aiohttp

from deployments import wire
from deployments.gateway.transport import Channel, ChannelClosedError
from router.kv_events import EventStream
from router.kv_subscriber import KvEndpoints, KvEventSubscriber
from router.prefix_index import PrefixIndex
from router.types import ReplicaInfo

_LOG = logging.getLogger("weir.gateway")
_FOLLOW_AGAIN_S = 1.0
_CLOSE_TIMEOUT_S = 1.0


class WebSocketTransport:
    """``token`` is the platform's internal one; replicas turn everybody else away."""

    def __init__(self, session: aiohttp.ClientSession, token: str) -> None:
        self._session = session
        self._token = token

    async def connect(self, replica_id: str, address: str) -> Channel:
        """See :class:`deployments.gateway.transport.ReplicaTransport`."""
        try:
            socket = await self._session.ws_connect(
                f"http://{address}{wire.PATH}",
                headers={wire.TOKEN_HEADER: self._token},
                max_msg_size=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT_S),
            )
        except (aiohttp.ClientError, OSError) as error:
            raise ChannelClosedError(f"{address} does not answer: {error}") from error
        return _WebSocketChannel(socket)


class _WebSocketChannel:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (aiohttp.ClientError, OSError) as error:
            raise ChannelClosedError(str(error)) from error

    async def receive(self) -> bytes:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            data: bytes = message.data
            return data
        reason = "" if self._socket.exception() is None else f": {self._socket.exception()}"
        raise ChannelClosedError(f"the replica closed the connection{reason}")

    async def close(self) -> None:
        await self._socket.close()


class KvEventFeed:
    """Follows a replica's KV events for as long as it is a member."""

    async def follow(self, index: PrefixIndex, info: ReplicaInfo) -> None:
        """See :class:`deployments.gateway.transport.CacheFeed`."""
        assert info.kv_feed is not None
        endpoints = KvEndpoints(info.kv_feed.events, info.kv_feed.replay)
        while True:
            stream = EventStream(index, info.replica_id, info.block_size)
            try:
                await KvEventSubscriber(stream, endpoints).run()
            except Exception:  # noqa: BLE001 - a feed that breaks must not end the gateway
                _LOG.exception("KV events lost", extra={"replica": info.replica_id})
                stream.lost()
            await asyncio.sleep(_FOLLOW_AGAIN_S)
