"""This moment, as the control process puts it together: right with four gateways, and nothing of
one tenant in what another sees."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from redis import Redis

from deployments.live import BOARDS, STALE_MS, WATCHED, encode
from tests.deployments.control.boards import REPLICAS, Told
from tests.deployments.control.world import OPERATOR, START_S, World
from weir.accounts import AccountKeys, month_of
from weir.ledger import UsageRecord
from weir.ledger.store import Arrived, store
from weir.tenancy import Role

_NOW_MS = int(START_S * 1000)


def _tell(redis: Redis, *boards: Told) -> None:
    for each in boards:
        redis.hset(BOARDS, each.gateway, encode(each.board()))


def _four() -> tuple[Told, ...]:
    return tuple(Told(f"g{n}", _NOW_MS) for n in range(4))


async def test_four_gateways_sum_up(live: World, redis: Redis) -> None:
    _tell(redis, Told("g0", _NOW_MS))
    one = (await live.ask("GET", "/admin/v1/live")).json()
    _tell(redis, *_four())
    await asyncio.sleep(1.0)  # until the first look is not shared any more
    four = (await live.ask("GET", "/admin/v1/live")).json()
    assert (one["gateways"], four["gateways"]) == (1, 4)
    summed = ("requests", "failed", "refused", "prompt_tokens", "cached_tokens", "output_tokens")
    for name in (*summed, "in_flight", "moved"):
        assert one[name] > 0, name
        assert four[name] == 4 * one[name], name
    assert four["requests"] == 4 * 10 * 2 * 2 * 10, "gateways, stretches, tenants, classes"
    assert float(four["usd"]) == pytest.approx(4 * float(one["usd"]))
    assert four["spills"] == [{"model": "big", "reason": "overload", "requests": 32}]
    waiting = {each["priority_class"]: each["waiting"] for each in four["queues"]}
    assert waiting == {"interactive": 4, "standard": 12, "batch": 0}
    for early, late in zip(
        one["series"]["requests_per_s"], four["series"]["requests_per_s"], strict=True
    ):
        assert late == pytest.approx(4 * early, abs=0.01)
    interactive = next(c for c in four["classes"] if c["priority_class"] == "interactive")
    assert (interactive["ttft_met"], interactive["ttft_missed"]) == (720, 80)
    assert interactive["ttft_attained"] == 0.9


async def test_a_replica_is_the_same_for_all_gateways(live: World, redis: Redis) -> None:
    """All of them hear of it; nothing of it is summed."""
    _tell(redis, *_four())
    body = (await live.ask("GET", "/admin/v1/live")).json()
    assert [each["id"] for each in body["replicas"]] == list(REPLICAS)
    assert [each["running"] for each in body["replicas"]] == [3, 4]
    assert body["replicas"][0]["usd_per_hour"] == "2.500000000"
    assert float(body["paid_usd_per_hour"]) == 5.0


async def test_what_has_been_heard_last_of_a_replica_stands(live: World, redis: Redis) -> None:
    old, new = Told("g0", _NOW_MS).board(), Told("g1", _NOW_MS).board()
    old.replicas[0].age_s, old.replicas[0].running = 9.0, 77
    new.replicas[0].age_s, new.replicas[0].running = 0.1, 5
    for board in (old, new):
        redis.hset(BOARDS, board.gateway, encode(board))
    body = (await live.ask("GET", "/admin/v1/live")).json()
    assert body["replicas"][0]["running"] == 5


@pytest.mark.parametrize("role", list(Role))
async def test_a_tenant_sees_itself_only(live: World, redis: Redis, role: Role) -> None:
    _tell(redis, *_four())
    whole = await live.ask("GET", "/admin/v1/live")
    assert {each["tenant"] for each in whole.json()["tenants"]} == {"acme", "other"}
    for answer in await _everything_of("acme", live, live.keys["acme", role]):
        assert answer.status_code == 200, answer.text
        assert "other" not in answer.text
        assert "310.4" not in answer.text, "costs tell of all tenants' load"
        assert "1900.25" not in answer.text
    own = (await live.ask("GET", "/v1/tenant/live", live.keys["acme", role])).json()
    assert own["replicas"] is None
    assert own["queues"] is None
    assert own["paid_usd_per_hour"] is None
    assert [each["tenant"] for each in own["tenants"]] == ["acme"]
    assert own["requests"] == whole.json()["requests"] / 2
    assert own["in_flight"] == 4
    assert len(own["recent"]) == 16


async def _everything_of(tenant: str, live: World, key: str) -> list[Any]:
    page = await live.ask("GET", "/v1/tenant/live", key)
    ids = [row["serial"] for row in page.json()["recent"]]
    followed = [await live.ask("GET", f"/v1/tenant/requests/{each}", key) for each in ids]
    return [page, *followed]


async def test_another_tenants_request_is_not_there(live: World, redis: Redis) -> None:
    _tell(redis, *_four())
    asked, key = "g0-other-plain", live.keys["acme", Role.TENANT_ADMIN]
    assert (await live.ask("GET", f"/admin/v1/requests/{asked}")).status_code == 200
    assert (await live.ask("GET", f"/v1/tenant/requests/{asked}", key)).status_code == 404
    one = f"/admin/v1/tenants/acme/requests/{asked}"
    assert (await live.ask("GET", one)).status_code == 404, "of the tenant that the path names"
    assert (await live.ask("GET", one, key)).status_code == 403


async def test_the_operator_may_look_as_a_tenant(live: World, redis: Redis) -> None:
    _tell(redis, *_four())
    own = (await live.ask("GET", "/v1/tenant/live", live.keys["acme", Role.READ_ONLY])).json()
    seen = (await live.ask("GET", "/admin/v1/tenants/acme/live")).json()
    assert seen == own
    assert (await live.ask("GET", "/admin/v1/tenants/nobody/live")).status_code == 404


async def test_a_request_is_followed_through_its_legs(live: World, redis: Redis) -> None:
    _tell(redis, *_four())
    body = (await live.ask("GET", "/admin/v1/requests/g2-acme-moved")).json()
    (request,) = body["data"]
    assert request["source"] == "gateway"
    first, second = request["attempts"][0]["legs"]
    assert (first["replica"], first["loss"]) == (REPLICAS[0], "gone")
    assert (second["replica"], second["loss"]) == (REPLICAS[1], "")
    assert [each["cost"] for each in first["candidates"]] == [310.4, 1900.25]
    by_serial = await live.ask("GET", f"/admin/v1/requests/{request['serial']}")
    assert by_serial.json() == body
    spilled = (await live.ask("GET", "/admin/v1/requests/g2-acme-spilled")).json()["data"][0]
    assert [each["outcome"] for each in spilled["attempts"]] == ["dropped", "shown"]


async def test_the_last_decisions_are_explained(live: World, redis: Redis) -> None:
    _tell(redis, *_four())
    rows = (await live.ask("GET", "/admin/v1/live")).json()["recent"]
    row = next(each for each in rows if each["id"] == "g1-other-plain")
    assert (row["replica"], row["reason"]) == (REPLICAS[0], "least-expected-work")
    assert (row["cost"], row["next_cost"], row["candidates"]) == (310.4, 1900.25, 2)
    assert row["held_blocks"] == 2
    answered = {each["id"]: each["answered"] for each in rows}
    assert answered["g1-other-spilled"] == "small"
    assert answered["g1-other-failed"] == ""


async def test_what_no_gateway_knows_any_more_the_ledger_does(live: World, redis: Redis) -> None:
    legs = [
        _record("s1.0.0.0", replica="a", billed_output_tokens=4),
        _record("s1.0.0.1", replica="b", billed_prompt_tokens=0, started_ms=_NOW_MS - 4000),
        _record("s2.0.0.0", request="another", tenant="other"),
        _record("s3.0.0.0", ended_ms=_NOW_MS - 3_700_000),
    ]
    store(live.store.engine, [Arrived("o", 0, len(legs), legs)], {}, _NOW_MS)
    key = live.keys["acme", Role.READ_ONLY]
    for wanted in ("kept", "s1"):
        (request,) = (await live.ask("GET", f"/v1/tenant/requests/{wanted}", key)).json()["data"]
        assert (request["source"], request["serial"]) == ("ledger", "s1")
        assert [(leg["replica"], leg["loss"]) for leg in request["attempts"][0]["legs"]] == [
            ("a", "moved"),
            ("b", ""),
        ]
        assert (request["prompt_tokens"], request["output_tokens"]) == (100, 14)
        assert request["usd"] == "0.000002000"
    for hidden in ("another", "s2", "s%", "s3"):
        answer = await live.ask("GET", f"/v1/tenant/requests/{hidden}", key)
        assert answer.status_code == 404, hidden
    assert (await live.ask("GET", "/admin/v1/requests/another")).status_code == 200


def _record(leg: str, **more: object) -> UsageRecord:
    made = UsageRecord(
        leg=leg,
        request="kept",
        tenant="acme",
        model="big",
        asked="big",
        replica="a",
        started_ms=_NOW_MS - 9000,
        ended_ms=_NOW_MS - 3000,
        billed_prompt_tokens=100,
        billed_output_tokens=10,
        nano_usd=1000,
        billed=True,
    )
    return msgspec.structs.replace(made, **more)


async def test_what_is_left_of_quotas_and_budget(live: World, redis: Redis) -> None:
    changes = {
        "quotas": {"requests_per_minute": 60, "output_tokens_per_day": 1000},
        "model_quotas": {"big": {"concurrent_requests": 4}},
        "budget": {"usd_per_month": "2.50"},
    }
    live.store.update_tenant("test", "acme", changes)
    day, minute = _NOW_MS // 86_400_000, _NOW_MS // 60_000
    used = {
        "$": [month_of(day), 1_000_000_000],
        "t": [minute, day, 12, 0, 0, 40, 0, 700, 3],
        "m:big": [minute, day, 0, 0, 0, 0, 0, 0, 1],
    }
    packed = {field: msgspec.msgpack.encode(values) for field, values in used.items()}
    redis.hset(AccountKeys.of("acme").used, mapping=packed)
    _tell(redis, Told("g0", _NOW_MS))
    (own,) = (await live.ask("GET", "/v1/tenant/live", live.keys["acme", Role.READ_ONLY])).json()[
        "tenants"
    ]
    left = {(each["model"], each["quota"]): (each["used"], each["limit"]) for each in own["quotas"]}
    assert left == {
        (None, "requests_per_minute"): (12, 60),
        (None, "output_tokens_per_day"): (700, 1000),
        ("big", "concurrent_requests"): (1, 4),
    }
    assert {name: float(amount) for name, amount in own["budget"].items()} == {
        "usd_per_month": 2.5,
        "spent_usd": 1.0,
        "left_usd": 1.5,
    }


async def test_gateways_are_asked_to_tell(live: World, redis: Redis) -> None:
    assert redis.exists(WATCHED) == 0
    body = (await live.ask("GET", "/admin/v1/live")).json()
    assert (body["gateways"], body["requests"]) == (0, 0)
    assert body["tenants"] == []
    assert 0 < redis.ttl(WATCHED) <= 15


async def test_a_gateway_that_is_gone_is_not_counted(live: World, redis: Redis) -> None:
    _tell(redis, Told("gone", _NOW_MS - STALE_MS - 1), Told("here", _NOW_MS))
    redis.hset(BOARDS, "of another version", b'{"gateway": 7}')
    body = (await live.ask("GET", "/admin/v1/live")).json()
    assert body["gateways"] == 1
    assert all(row["id"].startswith("here-") for row in body["recent"])


async def test_redis_away_is_told_and_the_ledger_still_asked(world: World) -> None:
    answer = await world.ask("GET", "/admin/v1/live", OPERATOR)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "redis_away")
    assert answer.headers["retry-after"]
    answer = await world.ask("GET", "/admin/v1/requests/nobody")
    assert answer.status_code == 404


def test_boards_are_small() -> None:
    """Ten tenants, a full quarter of an hour: what a gateway writes once a second."""
    told = Told("g0", _NOW_MS, tuple(f"tenant-{n}" for n in range(10)))
    written = encode(told.board())
    assert len(written) < 300_000
    assert json.loads(written)["gateway"] == "g0"
