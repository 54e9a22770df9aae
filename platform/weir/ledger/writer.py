"""From the Redis stream into the database. One such writer is enough; several share the work."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from weir.errors import DatabaseAwayError
from weir.ledger.frames import unpack
from weir.ledger.rates import Rates
from weir.ledger.shipping import COMMITTED, STREAM
from weir.ledger.store import Arrived, prune, store

_LOG = logging.getLogger("weir.ledger")
_GROUP = "writer"
#: Entries that cannot be read are kept here, the newest of them, for whoever wants to know why.
REJECTED = "{weir:ledger}:rejected"
_MOST_REJECTED = 1000
_ENTRIES = 64
_WAIT_MS = 500
_CLAIM_PERIOD_S = 10.0
_IDLE_MS = 30_000
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_PRUNE_PERIOD_S = 3600.0
_DAY_MS = 86_400_000

_Raw = tuple[bytes, dict[bytes, bytes]]


def run_writer(
    redis_url: str,
    engine: Engine,
    stop: threading.Event,
    rates: Callable[[], Rates] | None = None,
    keep_records_days: int = 90,
) -> None:
    """Write until ``stop`` is set; in a thread of its own. Redis and the database may be away for
    any time. ``rates``: what replica-hours cost now. Single records are removed after
    ``keep_records_days``; their sums stay."""
    redis = Redis.from_url(redis_url, socket_timeout=5.0, socket_connect_timeout=2.0)
    writer = Writer(redis, engine, rates or dict)
    pause_s, pruned_s = _PAUSE_S, float("-inf")
    try:
        while not stop.is_set():
            try:
                if time.monotonic() - pruned_s > _PRUNE_PERIOD_S:
                    prune(engine, int(time.time() * 1000) - keep_records_days * _DAY_MS)
                    pruned_s = time.monotonic()
                writer.write(_WAIT_MS)
                pause_s = _PAUSE_S
            except (RedisError, OSError, DatabaseAwayError, SQLAlchemyError) as error:
                _LOG.warning("the ledger is not written now", extra={"reason": str(error)})
                stop.wait(pause_s)
                pause_s = min(2.0 * pause_s, _LONGEST_PAUSE_S)
    finally:
        redis.close()


@dataclass(frozen=True, slots=True)
class _Read:
    """Entries of the stream, and what is in them."""

    ids: Sequence[bytes]
    arrived: Sequence[Arrived]


class Writer:
    """One consumer of the stream's group. Entries stay pending until the database has them."""

    def __init__(self, redis: Any, engine: Engine, rates: Callable[[], Rates]) -> None:
        self._redis = redis
        self._engine = engine
        self._rates = rates
        self._name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"
        self._joined = False
        self._unfinished = True  # entries that were read, and perhaps not written
        self._claimed_s = 0.0

    def write(self, wait_ms: int) -> int:
        """Write what is there, waiting at most ``wait_ms`` for something; the number of records.

        Raises:
            RedisError, DatabaseAwayError: what was read is read again the next time.
        """
        if not self._joined:
            self._join()
        try:
            entries = self._next(wait_ms)
        except ResponseError as error:
            if "NOGROUP" in str(error):  # Redis has lost everything
                self._joined = False
            raise
        if not entries:
            return 0
        self._unfinished = True
        read = self._read(entries)
        marks = store(self._engine, read.arrived, self._rates(), int(time.time() * 1000))
        self._acknowledge(read.ids, marks)
        self._unfinished = False
        return sum(len(each.entries) for each in read.arrived)

    def _join(self) -> None:
        try:
            self._redis.xgroup_create(STREAM, _GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._joined = True

    def _next(self, wait_ms: int) -> list[_Raw]:
        if self._unfinished and (own := self._group_read("0", None)):
            return own
        self._unfinished = False
        now_s = time.monotonic()
        if now_s - self._claimed_s > _CLAIM_PERIOD_S:
            self._claimed_s = now_s
            if left := self._claim():
                return left
        return self._group_read(">", wait_ms)

    def _group_read(self, begin: str, wait_ms: int | None) -> list[_Raw]:
        found = self._redis.xreadgroup(
            _GROUP, self._name, {STREAM: begin}, count=_ENTRIES, block=wait_ms
        )
        return [entry for _, entries in found or () for entry in entries]

    def _claim(self) -> list[_Raw]:
        """What a writer that is dead has read and not finished; writers without any go."""
        told = self._redis.xautoclaim(STREAM, _GROUP, self._name, _IDLE_MS, "0", count=_ENTRIES)
        if not told[1]:
            for consumer in self._redis.xinfo_consumers(STREAM, _GROUP):
                if not consumer["pending"] and consumer["idle"] > 10 * _IDLE_MS:
                    self._redis.xgroup_delconsumer(STREAM, _GROUP, consumer["name"])
        return list(told[1])

    def _read(self, entries: Sequence[_Raw]) -> _Read:
        arrived = []
        for number, fields in entries:
            if not fields:  # deleted while it was pending
                continue
            try:
                arrived.append(_arrived(fields))
            except msgspec.MsgspecError as error:  # it would be the same another time
                self._reject(number, fields, error)
                arrived.append(_arrived(fields | {b"f": b"", b"n": b"0"}, int(fields[b"n"])))
            except (KeyError, ValueError) as error:  # the outbox sends it again
                self._reject(number, fields, error)
        return _Read([number for number, _ in entries if number], arrived)

    def _reject(self, number: bytes, fields: dict[bytes, bytes], error: Exception) -> None:
        _LOG.error("records cannot be read", extra={"entry": number, "reason": str(error)})
        self._redis.xadd(REJECTED, fields, maxlen=_MOST_REJECTED, approximate=True)

    def _acknowledge(self, ids: Sequence[bytes], marks: dict[str, int]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for name, mark in marks.items():
            pipeline.hset(COMMITTED, name, mark)
        pipeline.xack(STREAM, _GROUP, *ids)
        pipeline.xdel(STREAM, *ids)
        pipeline.execute()


def _arrived(fields: Mapping[bytes, bytes], skipped: int = 0) -> Arrived:
    """An entry's records; so many more are ``skipped`` behind them.

    Raises:
        KeyError, ValueError: it is no entry of the ledger's.
        msgspec.MsgspecError: a record is of a kind that is not known here.
    """
    entries = unpack(fields[b"f"])
    if len(entries) != int(fields[b"n"]):
        raise ValueError(f"{len(entries)} records where {fields[b'n']!r} were told")
    first = int(fields[b"s"])
    end = first + len(entries) + skipped
    return Arrived(fields[b"o"].decode(), first, end, entries, int(fields[b"b"]))
