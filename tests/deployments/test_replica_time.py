"""From when to when a replica is paid, whatever becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from deployments.gateway.model import Model
from deployments.gateway.replica_time import ReplicaClock
from deployments.served import ServedReplica
from router.types import ReplicaInfo
from weir.database import migrate, open_database
from weir.ledger import ReplicaTime
from weir.ledger.rates import Rate, Rates
from weir.ledger.report import cost_report
from weir.ledger.store import Arrived, store
from weir.settings import ModelSettings

DEPLOYMENT = "model-m"
#: Some moment; its hour has half an hour to go.
T_MS = 1_795_869_000_000


class Fleet:
    """What a gateway knows of a model's replicas, and what Serve would say of them."""

    def __init__(self) -> None:
        self.members: dict[str, ReplicaInfo] = {}
        self.connected: set[str] = set()
        self.served: dict[str, ServedReplica] | None = {}
        model = SimpleNamespace(
            name="m",
            settings=ModelSettings(name="m", source="x"),
            router=SimpleNamespace(members=[]),
            fleet=SimpleNamespace(connected=self.connected),
            pool_of=lambda replica_id: "",
        )
        self._router = model.router
        self._clock = ReplicaClock([cast(Model, model)])
        self.told: list[ReplicaTime] = []

    def ask(self, name: str, asked_s: float, placed: bool, of: str = DEPLOYMENT) -> None:
        assert self.served is not None
        self.served[name] = ServedReplica(name, of, T_MS / 1000 + asked_s, placed)

    def join(self, name: str, began_s: float) -> None:
        self.members[name] = ReplicaInfo(name, started_s=T_MS / 1000 + began_s)
        self.connected.add(name)

    def leave(self, name: str) -> None:
        del self.members[name]

    def gone(self, name: str) -> None:
        self.members.pop(name, None)
        self.connected.discard(name)
        if self.served is not None:
            self.served.pop(name, None)

    def look(self, at_s: float) -> None:
        self._router.members = list(self.members.values())
        served = None if self.served is None else list(self.served.values())
        self.told += self._clock.look(T_MS + round(at_s * 1000), served)

    def close(self) -> None:
        self.told += self._clock.close()

    def stretch(self, name: str) -> tuple[float, float]:
        """From when to when its time has been told, in seconds."""
        own = [each for each in self.told if each.replica == name]
        first, last = min(e.from_ms for e in own), max(e.until_ms for e in own)
        return (first - T_MS) / 1000, (last - T_MS) / 1000


def test_a_replica_is_paid_from_the_start_of_its_process_to_its_end() -> None:
    fleet = Fleet()
    fleet.ask("r", 0.0, placed=False)
    fleet.look(4.0)
    fleet.ask("r", 0.0, placed=True)
    fleet.look(9.0)
    fleet.join("r", 0.6)  # so long after it was asked for, as it says when it is ready
    for at_s in range(14, 200, 5):
        fleet.look(at_s)
    fleet.leave("r")  # from here on it ends its streams, and then itself
    fleet.look(200.0)
    fleet.connected.clear()
    fleet.look(205.0)
    fleet.gone("r")
    fleet.look(210.0)
    assert fleet.stretch("r") == (0.6, 205.0)


def test_one_that_dies_while_it_loads_is_paid_too() -> None:
    fleet = Fleet()
    fleet.ask("r", 1.0, placed=True)
    for at_s in (3.0, 8.0, 13.0):
        fleet.look(at_s)
    fleet.gone("r")
    fleet.look(18.0)
    assert fleet.stretch("r") == (1.0, 13.0)


def test_nobody_pays_for_a_replica_that_waits_for_a_machine() -> None:
    fleet = Fleet()
    fleet.ask("r", 0.0, placed=False)
    for at_s in range(5, 300, 5):
        fleet.look(at_s)
    fleet.close()
    assert fleet.told == []
    fleet.ask("r", 0.0, placed=True)
    fleet.look(300.0)
    fleet.close()
    assert fleet.stretch("r") == (295.0, 300.0)  # so long it was seen without a process
    fleet.join("r", 288.0)  # Serve hears of a process when its code is loaded: it knows better
    fleet.look(310.0)
    fleet.close()
    assert fleet.stretch("r") == (288.0, 310.0)


def test_the_time_in_which_ray_kept_a_process_for_anybody_is_not_the_replicas() -> None:
    fleet = Fleet()
    fleet.ask("r", 50.0, placed=True)
    fleet.join("r", 0.0)
    fleet.look(60.0)
    fleet.close()
    assert fleet.stretch("r") == (50.0, 60.0)


def test_while_serve_does_not_answer_what_it_said_last_holds() -> None:
    fleet = Fleet()
    fleet.ask("loading", 0.0, placed=True)
    fleet.look(5.0)
    fleet.served = None
    fleet.join("new", 6.0)
    fleet.look(10.0)
    fleet.gone("new")
    fleet.look(15.0)
    fleet.close()
    assert fleet.stretch("new") == (6.0, 10.0)
    assert fleet.stretch("loading") == (0.0, 15.0)


def test_a_gateway_that_ends_tells_what_it_has_not_told_yet() -> None:
    fleet = Fleet()
    fleet.join("r", 0.0)
    for at_s in (5.0, 61.0, 66.0):
        fleet.look(at_s)
    assert fleet.stretch("r") == (0.0, 61.0)
    fleet.close()
    assert fleet.stretch("r") == (0.0, 66.0)
    assert len(fleet.told) == 2


def test_what_is_no_models_replica_is_not_paid() -> None:
    fleet = Fleet()
    fleet.ask("g", 0.0, placed=True, of="gateway")
    fleet.look(100.0)
    fleet.close()
    assert fleet.told == []


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path / 'weir.db'}")
    migrate(engine)
    yield engine
    engine.dispose()


@given(
    lives=st.lists(
        st.tuples(st.integers(0, 300), st.integers(1, 60), st.integers(0, 300)), max_size=5
    )
)
def test_what_is_told_is_what_was_up(lives: list[tuple[int, int, int]]) -> None:
    """Of each: when it is asked for, how long it loads, how long it serves. At most five seconds
    of its end are missing, and nothing is told that was not."""
    fleet = Fleet()
    for at_s in range(0, 700, 5):
        for number, (asked, loads, serves) in enumerate(lives):
            name = f"r{number}"
            if asked <= at_s < asked + loads + serves:
                fleet.ask(name, asked, placed=True)
                if at_s >= asked + loads:
                    fleet.join(name, asked + 0.5)
            else:
                fleet.gone(name)
        fleet.look(at_s)
    fleet.close()
    for number, (asked, loads, serves) in enumerate(lives):
        if any(each.replica == f"r{number}" for each in fleet.told):
            first, last = fleet.stretch(f"r{number}")
            assert first == (asked + 0.5 if last >= asked + loads else asked)
            assert asked + loads + serves - 5 <= last <= asked + loads + serves
        else:
            assert loads + serves <= 5


def test_the_bill_of_replicas_that_never_served(database: Engine) -> None:
    fleet = Fleet()
    for attempt in range(6):
        name = f"r{attempt}"
        for at_s in range(attempt * 100, attempt * 100 + 61, 5):
            fleet.ask(name, attempt * 100, placed=True)
            fleet.look(at_s)
        fleet.gone(name)
        fleet.look(attempt * 100 + 65)
    rates: Rates = {("m", ""): Rate(3_600_000_000, 3_600_000_000)}
    arrived = Arrived("outbox", 0, len(fleet.told), fleet.told)
    store(database, [arrived], rates, T_MS)
    report = cost_report(database)
    assert float(report.paid_usd) == pytest.approx(6 * 60 * 0.001)
    assert report.idle_usd == report.paid_usd
