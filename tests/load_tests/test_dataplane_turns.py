"""Systems that are all up, of which one at a time runs."""

from __future__ import annotations

import psutil
import pytest

from load_tests.dataplane.measure import ALONE, FULL, Pace, Prompts
from load_tests.dataplane.systems import System
from load_tests.dataplane.turns import Turns
from load_tests.servers import StartError, engine_workload
from load_tests.servers.gateways import nothing
from load_tests.servers.process import Launch, http_ready

PACE = Pace(0.1, 0.4)


def _upstream(key: str) -> System:
    return System(key, key, "engine", lambda _: nothing(2.0), (FULL, ALONE))


def test_each_is_measured_while_the_others_stand_still() -> None:
    prompts = Prompts(engine_workload(None), 7)
    told: list[str] = []
    states: list[set[str]] = []
    with Turns([_upstream("x"), _upstream("y")], prompts, PACE) as turns:
        pids = [pid for server in turns._up.values() for pid in server.pids()]

        def tell(text: str) -> None:
            told.append(text)
            states.append({psutil.Process(pid).status() for pid in pids})

        found = turns.round(0, tell)
    assert len(pids) == 2
    assert states == [{psutil.STATUS_STOPPED}] * 2
    assert [text.partition(":")[0] for text in told] == ["round 1, full", "round 1, alone"]
    for key in ("x", "y"):
        measured = found[key].phases
        assert measured["full"].complete > measured["alone"].complete > 0
        assert not measured["full"].faults
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_what_is_up_ends_where_another_does_not_come_up() -> None:
    def broken(_: object) -> tuple[list[Launch], None]:
        return [Launch("broken", ["false"], http_ready(1))], None

    turns = Turns(
        [_upstream("x"), System("y", "y", "engine", broken)],  # type: ignore[arg-type]
        Prompts(engine_workload(None), 7),
        PACE,
    )
    with pytest.raises(StartError), turns:
        raise AssertionError("it must not begin")
    assert not turns._up["x"].pids()
