"""How long each replica is up: from when it takes a machine until its process has ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from deployments.gateway.model import Model
from deployments.pools import pools_of
from deployments.served import ServedReplica
from weir.ledger import ReplicaTime

_TELL_S = 60.0


@dataclass(frozen=True, slots=True)
class _Up:
    """A replica that takes a machine now, and since when; milliseconds since the epoch. ``exact``:
    it has told that itself, or nobody will."""

    model: str
    pool: str
    since_ms: int
    exact: bool


@dataclass(slots=True)
class _Life:
    """``told_ms``: up to there its time has been told."""

    model: str
    pool: str
    exact: bool
    told_ms: int
    seen_ms: int


class ReplicaClock:
    """How long each replica is up, told about once a minute, and when it has gone; of one that
    still loads, once it has told when it began. All gateways tell the same of the same replica."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = models
        self._pools = {p.deployment: (m.name, p.name) for m in models for p in pools_of(m.settings)}
        self._served: Sequence[ServedReplica] = ()
        self._waited_ms: dict[str, int] = {}
        self._lives: dict[str, _Life] = {}

    def look(
        self, now_ms: int, served: Sequence[ServedReplica] | None = None
    ) -> Iterator[ReplicaTime]:
        """What is to be told now, in milliseconds since the epoch. ``served`` is None where Serve
        does not answer: what it said last holds."""
        if served is not None:
            self._served = [each for each in served if each.deployment in self._pools]
        up = self._up(now_ms)
        for replica_id, each in up.items():
            self._see(replica_id, each, now_ms)
        for replica_id, life in list(self._lives.items()):
            gone = replica_id not in up
            if gone:
                del self._lives[replica_id]
            if gone or (life.exact and now_ms - life.told_ms >= _TELL_S * 1000):
                yield from _tell(replica_id, life)

    def close(self) -> Iterator[ReplicaTime]:
        """What has not been told yet."""
        for replica_id, life in self._lives.items():
            yield from _tell(replica_id, life)

    def _see(self, replica_id: str, up: _Up, now_ms: int) -> None:
        life = self._lives.get(replica_id)
        if life is None:
            life = _Life(up.model, up.pool, up.exact, up.since_ms, now_ms)
            self._lives[replica_id] = life
        elif up.exact and not life.exact:
            life.exact, life.told_ms = True, up.since_ms
        life.seen_ms = now_ms

    def _up(self, now_ms: int) -> dict[str, _Up]:
        """Members, and those that start, or have left and still end their streams or themselves."""
        found: dict[str, _Up] = {}
        told_ms: dict[str, int] = {}
        for model in self._models:
            for info in model.router.members:
                told_ms[info.replica_id] = since_ms = int(info.started_s * 1000)
                found[info.replica_id] = _Up(model.name, info.pool, since_ms or now_ms, True)
            for replica_id in model.fleet.connected - found.keys():
                found[replica_id] = _Up(model.name, model.pool_of(replica_id), now_ms, True)
        for each in self._served:
            if each.placed:
                asked_ms = int(each.asked_s * 1000)
                # Ray may have kept the process idle before, for whoever would need one.
                since_ms = max(asked_ms, self._began_ms(each.replica_id, told_ms))
                exact = each.replica_id in told_ms
                found[each.replica_id] = _Up(*self._pools[each.deployment], since_ms, exact)
        waiting = {each.replica_id for each in self._served if not each.placed}
        placed = found.keys() & self._waited_ms.keys()
        self._waited_ms = {r: self._waited_ms[r] for r in placed} | dict.fromkeys(waiting, now_ms)
        return {r: replace(up, since_ms=min(up.since_ms, now_ms)) for r, up in found.items()}

    def _began_ms(self, replica_id: str, told_ms: dict[str, int]) -> int:
        """When its process began, as it says itself; until it does, when it was last seen without
        one."""
        return told_ms.get(replica_id) or self._waited_ms.get(replica_id, 0)


def _tell(replica_id: str, life: _Life) -> Iterator[ReplicaTime]:
    if life.seen_ms > life.told_ms:
        yield ReplicaTime(
            replica=replica_id,
            model=life.model,
            pool=life.pool,
            from_ms=life.told_ms,
            until_ms=life.seen_ms,
        )
        life.told_ms = life.seen_ms
