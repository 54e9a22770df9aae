"""Rollouts over the admin API: started, seen, changed, and only by the operator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.deployments.control.world import World, running, settings_of
from weir.rollouts.store import RolloutStore
from weir.tenancy import Role
from weir.tenancy.audit import read_audit

NEW: dict[str, Any] = {"model": "big", "candidate": "next", "settings": {"steps": [0.1, 0.5]}}
ALL = "/admin/v1/rollouts"


def judged_by(model: str) -> dict[str, Any]:
    """The same, with perplexity under a model."""
    return {**NEW, "settings": {"mirror": 0.1, "judge": {"perplexity": {"model": model}}}}


@pytest.fixture
async def world(database_at: str, database: Any) -> AsyncIterator[World]:
    """With a candidate that costs what the model costs."""
    settings = settings_of()
    big = settings.models[0]
    candidate = big.model_copy(update={"name": "next", "fallback": None, "adapters": ()})
    settings = settings.model_copy(update={"models": (*settings.models, candidate)})
    async with running(database_at, settings) as made:
        yield made


async def test_a_rollouts_life(world: World) -> None:
    made = await world.ask("POST", ALL, json=NEW)
    assert made.status_code == 201, made.text
    assert (made.json()["state"], made.json()["share"]) == ("running", 0.1)
    again = await world.ask("POST", ALL, json=NEW)
    assert again.status_code == 409
    held = await world.ask("POST", f"{ALL}/big/hold")
    assert (held.json()["state"], held.json()["reason"]) == ("held", "held by hand")
    assert (await world.ask("POST", f"{ALL}/big/resume")).json()["state"] == "running"
    early = await world.ask("POST", f"{ALL}/big/close")
    assert early.status_code == 409
    promoted = await world.ask("POST", f"{ALL}/big/promote")
    assert (promoted.json()["state"], promoted.json()["share"]) == ("promoted", 1.0)
    closed = await world.ask("POST", f"{ALL}/big/close")
    assert (closed.json()["share"], closed.json()["closed"]) == (0.0, True)
    listed = (await world.ask("GET", ALL)).json()["data"]
    assert [each["id"] for each in listed] == [made.json()["id"]]
    log = [entry.action for entry in read_audit(world.store.engine).items]
    assert log[0] == "rollout.close"
    assert log.count("rollout.start") == 1


async def test_what_the_judge_found_is_told(world: World) -> None:
    made = (await world.ask("POST", ALL, json=NEW)).json()
    finding = {
        "criterion": "tpot",
        "samples": 40,
        "observed": 0.4,
        "allowed": 0.5,
        "evidence_bad": 0.1,
        "evidence_good": 4.0,
        "bad": False,
        "good": False,
    }
    RolloutStore(world.store.engine).note_findings({made["id"]: {"criteria": [finding]}})
    (listed,) = (await world.ask("GET", ALL)).json()["data"]
    assert listed["findings"] == [finding]


async def test_a_third_model_may_judge(world: World) -> None:
    made = await world.ask("POST", ALL, json=judged_by("small"))
    assert made.status_code == 201, made.text
    judge = made.json()["settings"]["judge"]["perplexity"]
    assert (judge["model"], judge["share"], judge["worse_by"]) == ("small", 1.0, 0.1)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({**NEW, "candidate": "nobody"}, 404, "no model 'nobody'"),
        ({**NEW, "candidate": "big"}, 400, "the model itself"),
        ({**NEW, "candidate": "small"}, 400, "another price"),
        ({**NEW, "settings": {"steps": [0.5, 0.1]}}, 400, "do not shrink"),
        ({**NEW, "settings": {"judge": {"disagreement": 0.1}}}, 400, "mirror"),
        ({**NEW, "settings": {"judge": {"perplexity": {"model": "small"}}}}, 400, "mirror"),
        (judged_by("nobody"), 404, "no model 'nobody'"),
        (judged_by("next"), 400, "judge itself"),
        (judged_by("big"), 400, "judge itself"),
        ({**NEW, "more": 1}, 400, "more"),
    ],
)
async def test_what_cannot_be_is_refused(
    world: World, body: dict[str, Any], status: int, told: str
) -> None:
    answer = await world.ask("POST", ALL, json=body)
    assert answer.status_code == status, answer.text
    assert told in answer.json()["error"]["message"]
    assert (await world.ask("GET", ALL)).json()["data"] == []


async def test_a_tenant_sees_nothing_of_it(world: World) -> None:
    key = world.keys["acme", Role.TENANT_ADMIN]
    for method, path in (("GET", ALL), ("POST", ALL), ("POST", f"{ALL}/big/promote")):
        answer = await world.ask(method, path, key, json=NEW if method == "POST" else None)
        assert answer.status_code == 403


async def test_there_is_none(world: World) -> None:
    answer = await world.ask("POST", f"{ALL}/big/abort")
    assert answer.status_code == 404
    assert "no rollout" in answer.json()["error"]["message"]
