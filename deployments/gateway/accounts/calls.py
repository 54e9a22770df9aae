"""Calls of the account's script over the fast link to Redis: one round trip each, those of one turn
of the event loop in one write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import hiredis
import msgspec

from deployments.gateway.accounts.script import DIGEST, SCRIPT
from features.online import StoreLink
from features.online.connection import encode
from weir.accounts import AccountKeys

_ELSEWHERE: Final = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "BUSY", "OOM", "MASTERDOWN")
"""What a Redis says that is well, and cannot do it now."""

OnReply = Callable[[list[Any] | None], None]
"""Given what the script returns, or None where it is not known whether it ran. Must not raise."""


class Links(Protocol):
    """A server's link, or a cluster's links."""

    def route(self, key: bytes) -> StoreLink:
        """The link over which the key is reached."""
        ...

    def moved(self, reply: str) -> StoreLink | None:
        """The link to the node to which an error reply sends the caller, if it sends it."""
        ...


@dataclass(slots=True)
class _Call:
    tenant: str
    packed: bytes
    on_reply: OnReply
    link: StoreLink
    sent_on: bool = False


class ScriptCalls:
    """Calls the script for tenants."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._heads: dict[str, tuple[bytes, bytes, bytes]] = {}
        self._pack = msgspec.msgpack.Encoder().encode

    def call(self, tenant: str, operation: list[Any], on_reply: OnReply) -> StoreLink | None:
        """Send an operation; None if nobody is there to take it, and ``on_reply`` is not called."""
        key, short, _ = self._head(tenant)
        link = self._links.route(key)
        if link.broken:
            return None
        call = _Call(tenant, self._pack(operation), on_reply, link)
        return link if self._send(call, short) else None

    def reaches(self, tenant: str) -> bool:
        """Whether somebody is there to take the tenant's operations."""
        return not self._links.route(self._head(tenant)[0]).broken

    def _send(self, call: _Call, head: bytes) -> bool:
        command = b"%b$%d\r\n%b\r\n" % (head, len(call.packed), call.packed)
        return call.link.send(command, lambda reply: self._answered(call, reply))

    def _answered(self, call: _Call, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError) and self._again(call, str(reply)):
            return
        if isinstance(reply, list):
            call.link.answered()
            call.on_reply(reply)
            return
        if isinstance(reply, hiredis.ReplyError):
            if str(reply).startswith(_ELSEWHERE):
                call.link.answered()
            else:  # a replica, somebody else's data, no Redis at all
                call.link.distrust(f"the account's script: {reply}")
        call.on_reply(None)

    def _again(self, call: _Call, told: str) -> bool:
        """A script that is not known there is sent whole; a key that is elsewhere is followed once.
        In both cases nothing was done."""
        _, short, whole = self._head(call.tenant)
        if told.startswith("NOSCRIPT"):
            return self._send(call, whole)
        link = None if call.sent_on else self._links.moved(told)
        if link is None:
            return False
        call.link, call.sent_on = link, True
        if told.startswith("ASK ") and not link.send(encode(b"ASKING"), lambda _: None):
            return False
        return self._send(call, short)

    def _head(self, tenant: str) -> tuple[bytes, bytes, bytes]:
        """A key of the tenant, and the command without its last word: with the script's digest, and
        with all of it."""
        head = self._heads.get(tenant)
        if head is None:
            kept = AccountKeys.of(tenant)
            keys = [each.encode() for each in (kept.used, kept.held, kept.leases, kept.steps)]
            tail = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in (b"4", *keys))
            short, whole = (
                b"*8\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(said), said) + tail
                for name, said in ((b"EVALSHA", DIGEST.encode()), (b"EVAL", SCRIPT.encode()))
            )
            head = self._heads[tenant] = (keys[0], short, whole)
        return head
