"""Decisions of the autoscaler over the API."""

from __future__ import annotations

import pytest

from tests.deployments.control.world import OPERATOR, START_S, World
from tests.weir.autoscaling.test_keeping import decided, rows
from weir.autoscaling.keeping import keep
from weir.database import writing
from weir.tenancy import Role

HEADERS = {"authorization": f"Bearer {OPERATOR}"}
PREFIX = "/admin/v1/autoscaling"


@pytest.fixture
def kept(world: World) -> None:
    made = [decided(START_S - 100.0 + 10.0 * n, 1, 2 if n == 4 else 1) for n in range(9)]
    with writing(world.store.engine) as connection:
        keep(connection, rows(*made))


@pytest.mark.usefixtures("kept")
async def test_the_last_decision_and_the_one_then(world: World) -> None:
    (last,) = (await world.http.get(f"{PREFIX}/status", headers=HEADERS)).json()["data"]
    assert last["at_s"] == START_S - 20.0
    asked = {"model": "m", "at": "2026-12-01T00:00:00Z"}
    answer = await world.http.get(f"{PREFIX}/explain", headers=HEADERS, params=asked)
    then = answer.json()
    assert answer.status_code == 200, then
    assert then["explanation"]["because"] == "enough for the work"
    assert then["state"]["classes"]["standard"]["waiting_requests"] == 3
    assert then["explanation"]["alternatives"][0]["verdict"] == "dearer"


@pytest.mark.usefixtures("kept")
async def test_decisions_come_in_pages(world: World) -> None:
    seen, after = [], None
    while True:
        asked = {"limit": 4, **({"after": after} if after else {})}
        answer = await world.http.get(f"{PREFIX}/decisions", headers=HEADERS, params=asked)
        told = answer.json()
        seen += [each["number"] for each in told["data"]]
        after = told["next"]
        if not told["has_more"]:
            break
    assert seen == list(range(9, 0, -1))
    changed = await world.http.get(f"{PREFIX}/decisions", headers=HEADERS, params={"changed": True})
    assert [each["targets"] for each in changed.json()["data"]] == [{"m": 2}]


async def test_a_model_that_nothing_was_decided_for_is_not_found(world: World) -> None:
    answer = await world.http.get(f"{PREFIX}/explain", headers=HEADERS, params={"model": "x"})
    assert answer.status_code == 404
    odd = {"model": "x", "at": "soon"}
    answer = await world.http.get(f"{PREFIX}/explain", headers=HEADERS, params=odd)
    assert answer.status_code == 400


async def test_it_is_the_operators(world: World) -> None:
    key = world.keys["acme", Role.TENANT_ADMIN]
    headers = {"authorization": f"Bearer {key}"}
    assert (await world.http.get(f"{PREFIX}/status", headers=headers)).status_code == 403
