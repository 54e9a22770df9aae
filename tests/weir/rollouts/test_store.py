"""Rollouts in the database, as gateways see them; and the keeper that moves them on."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from sqlalchemy import Engine

from weir.errors import ConflictError, NotFoundError
from weir.rollouts.keeper import Keeper
from weir.rollouts.samples import Sample
from weir.rollouts.store import RolloutStore
from weir.rollouts.stream import FIELD, packed, stream_of, unpacked
from weir.settings.rollout import RolloutSettings
from weir.settings.tenants import TenantSettings
from weir.tenancy import Directory, LiveDirectory
from weir.tenancy.audit import read_audit
from weir.tenancy.database import TenantStore
from weir.tenancy.known import Known
from weir.tenancy.watch import DirectoryWatch

QUICK = RolloutSettings(steps=(0.1, 0.5), step_s=5.0)


class Stream:
    """The two calls of redis-py's that the keeper makes."""

    def __init__(self) -> None:
        self.entries: dict[str, list[tuple[bytes, dict[bytes, bytes]]]] = {}

    def add(self, rollout_id: str, samples: list[Sample]) -> None:
        held = self.entries.setdefault(stream_of(rollout_id), [])
        held.append((str(len(held) + 1).encode(), {FIELD: packed(samples)}))

    def xread(self, keys: dict[str, Any], count: int) -> Any:
        ((key, after),) = keys.items()
        later = [e for e in self.entries.get(key, []) if int(e[0]) > int(after)][:count]
        return [(key.encode(), later)] if later else []


@pytest.fixture
def store(database: Engine) -> RolloutStore:
    return RolloutStore(database, lambda: 1000.0)


def test_a_life_and_its_audit(store: RolloutStore, database: Engine) -> None:
    made = store.start("me", "m", "next", QUICK)
    assert store.rollout("m") == made
    with pytest.raises(ConflictError, match="tried in the place of 'm' already"):
        store.start("me", "next", "third", QUICK)
    assert store.hold("me", "m", True).state == "held"
    assert store.hold("me", "m", False).state == "running"
    with pytest.raises(ConflictError, match="running, not promoted"):
        store.close("me", "m")
    promoted = store.end("me", "m", "promoted", "by hand")
    assert (promoted.share, promoted.in_force) == (1.0, True)
    with pytest.raises(ConflictError, match="promoted already"):
        store.end("me", "m", "aborted", "late")
    assert not store.close("me", "m").in_force
    store.start("me", "m", "next", QUICK)
    actions = [entry.action for entry in read_audit(database).items]
    assert actions == [
        "rollout.start",
        "rollout.close",
        "rollout.promoted",
        "rollout.resume",
        "rollout.hold",
        "rollout.start",
    ]
    with pytest.raises(NotFoundError, match="no rollout of the model 'x'"):
        store.rollout("x")


def test_gateways_see_it_and_know_it_without_the_database(
    store: RolloutStore, database: Engine
) -> None:
    live = LiveDirectory(Directory.of(()), time.time)
    listed = (TenantSettings(id="demo"),)
    watch = DirectoryWatch(live, TenantStore(database), listed)
    assert watch.look()
    assert live.directory.rollouts == {}
    made = store.start("me", "m", "next", QUICK)
    assert watch.look()
    assert live.directory.rollouts == {"m": made}
    known = Known(listed, rollouts=(made,))
    assert Known.from_json(known.to_json()).rollouts == (made,)
    store.end("me", "m", "rolled back", "slow")
    assert watch.look()
    assert live.directory.rollouts == {}


def test_findings_are_no_change_of_the_directory(store: RolloutStore, database: Engine) -> None:
    before = TenantStore(database).revision()
    store.note_findings({"r": {"action": "wait"}})
    store.note_findings({"r": {"action": "promote"}})
    assert store.findings() == {"r": {"action": "promote"}}
    assert TenantStore(database).revision() == before


def _samples(seconds: range, failing: bool) -> list[Sample]:
    return [
        Sample(arm, float(at), ttft_s=0.2, tpot_s=0.01, output_tokens=9, failed=fails)
        for at in seconds
        for arm, fails in (("live", False), ("candidate", failing))
    ]


def test_the_keeper_steps_and_rolls_back(database: Engine) -> None:
    now = [1000.0]
    store = RolloutStore(database, lambda: now[0])
    stream = Stream()
    keeper = Keeper(stream, store, lambda: now[0])
    keeper.look()
    rollout = store.start("me", "m", "next", QUICK)
    stream.add(rollout.id, _samples(range(5), failing=False))
    keeper.look()
    assert store.rollout("m").step == 0
    now[0] += 6.0
    keeper.look()
    assert store.rollout("m").share == 0.5
    stream.add(rollout.id, _samples(range(5, 60), failing=True))
    keeper.look()
    over = store.rollout("m")
    assert (over.state, over.reason) == ("rolled back", "worse than allowed: errors")
    found = store.findings()[rollout.id]
    assert found["because"] == "errors"
    errors = next(each for each in found["criteria"] if each["criterion"] == "errors")
    assert errors["bad"]
    assert errors["samples"] == 60


def test_a_keeper_that_is_started_anew_comes_to_the_same(database: Engine) -> None:
    store, stream = RolloutStore(database), Stream()
    rollout = store.start("me", "m", "next", QUICK)
    stream.add(rollout.id, _samples(range(20), failing=False))
    Keeper(stream, store).look()
    before = store.findings()
    stream.entries[stream_of(rollout.id)].append((b"99", {FIELD: b"\xc1"}))
    Keeper(stream, store).look()
    assert store.findings() == before


def test_somebody_elses_change_wins(store: RolloutStore) -> None:
    before = store.start("me", "m", "next", QUICK)
    after = store.end("me", "m", "aborted", "by hand")
    assert not store.advance("rollouts", before, after)
    assert store.rollout("m").state == "aborted"


def test_the_keeper_goes_on_when_something_is_away(store: RolloutStore) -> None:
    class Away:
        def xread(self, keys: Any, count: int) -> Any:
            raise OSError("away")

    store.start("me", "m", "next", QUICK)
    stop = threading.Event()
    thread = threading.Thread(target=Keeper(Away(), store).run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(timeout=10.0)
    assert not thread.is_alive()
    assert store.rollout("m").state == "running"


def test_samples_survive_the_wire() -> None:
    samples = _samples(range(2), failing=True)
    assert unpacked(packed(samples)) == samples
