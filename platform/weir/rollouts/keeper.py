"""Judges the rollouts that run, and moves them on. One is enough; two come to the same."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import msgspec
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from weir.errors import DatabaseAwayError
from weir.rollouts.course import ENDED, Rollout, advanced
from weir.rollouts.findings import Verdict
from weir.rollouts.judge import Judge
from weir.rollouts.store import RolloutStore
from weir.rollouts.stream import FIELD, stream_of, unpacked

_LOG = logging.getLogger("weir.rollouts")
_ACTOR = "rollouts"
_LOOK_S = 1.0
_READ = 500


class _Case:
    """One rollout before its judge. ``read``: the last entry of its stream that was read."""

    def __init__(self, rollout: Rollout) -> None:
        self.judge = Judge(rollout.settings.judge)
        self.read: bytes | str = "0"


class Keeper:
    """``redis``: a client of redis-py; ``clock`` gives seconds since the epoch."""

    def __init__(
        self, redis: Any, store: RolloutStore, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._store = store
        self._clock = clock
        self._cases: dict[str, _Case] = {}

    def run(self, stop: threading.Event) -> None:
        """Look once a second until ``stop`` is set; in a thread of its own. Redis and the database
        may be away for any time: shares then stay as they are."""
        while not stop.wait(_LOOK_S):
            try:
                self.look()
            except (RedisError, OSError, DatabaseAwayError, SQLAlchemyError) as error:
                _LOG.warning("rollouts are not judged now", extra={"reason": str(error)})

    def look(self) -> None:
        """Read what came, and move every rollout on."""
        running = [each for each in self._store.rollouts() if each.state not in ENDED]
        self._cases = {each.id: self._cases.get(each.id) or _Case(each) for each in running}
        findings: dict[str, Any] = {}
        for rollout in running:
            case = self._cases[rollout.id]
            self._read(rollout, case)
            verdict = case.judge.verdict()
            findings[rollout.id] = _told(verdict)
            after = advanced(rollout, verdict, self._clock())
            if after != rollout and self._store.advance(_ACTOR, rollout, after):
                told = {"model": after.model, "state": after.state, "share": after.share}
                _LOG.info("a rollout moves on", extra={**told, "reason": after.reason})
        if findings:
            self._store.note_findings({**self._store.findings(), **findings})

    def _read(self, rollout: Rollout, case: _Case) -> None:
        key = stream_of(rollout.id)
        while found := self._redis.xread({key: case.read}, count=_READ):
            ((_, entries),) = found
            for entry, fields in entries:
                case.read = entry
                try:
                    case.judge.observe(unpacked(fields[FIELD]))
                except (KeyError, ValueError, msgspec.DecodeError) as error:
                    _LOG.error("a sample cannot be read", extra={"reason": str(error)})
            if len(entries) < _READ:
                return


def _told(verdict: Verdict) -> dict[str, Any]:
    return {
        "action": verdict.action,
        "because": verdict.because,
        "criteria": [asdict(finding) for finding in verdict.findings],
    }
