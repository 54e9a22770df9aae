"""Usage, cost and SLOs over the API: what the ledger has, as JSON and as a table."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import msgspec
import pytest

from tests.deployments.control.world import START_S, World
from weir.ledger import ReplicaTime, UsageRecord
from weir.ledger.rates import Rate
from weir.ledger.store import Arrived, store
from weir.tenancy import Role

_START_MS = int(START_S * 1000) - 1000  # within an hour
_DAY_MS = 86_400_000


def _record(leg: str, **more: object) -> UsageRecord:
    made = UsageRecord(
        leg=leg,
        request=leg,
        tenant="acme",
        key="key1",
        model="big",
        asked="big",
        replica="r1",
        started_ms=_START_MS - 1000,
        ended_ms=_START_MS,
        priority_class="interactive",
        endpoint="chat",
        prompt_tokens=100,
        cached_tokens=40,
        output_tokens=10,
        billed_prompt_tokens=100,
        billed_cached_tokens=40,
        billed_output_tokens=10,
        nano_usd=1_000_000,
        billed=True,
        prefill_us=500_000,
        decode_us=500_000,
        requests=1,
    )
    return msgspec.structs.replace(made, **more)


@pytest.fixture
def used(world: World) -> World:
    """Four requests of two tenants, and an hour of a replica."""
    records = [
        _record("a.0.0.0", slo="met", ttft_ms=100),
        _record("b.0.0.0", slo="missed", ttft_ms=5000, label="=cmd()", key="key2"),
        _record("c.0.0.0", model="small", spill="overload", ended_ms=_START_MS - _DAY_MS),
        _record("d.0.0.0", tenant="other", nano_usd=7, slo="met", ttft_ms=300),
        ReplicaTime(
            replica="r1", model="big", pool="", from_ms=_START_MS - 10_000, until_ms=_START_MS
        ),
    ]
    rates = {("big", ""): Rate(3_600_000_000, 3_600_000_000)}
    store(world.store.engine, [Arrived("outbox", 0, len(records), records)], rates, _START_MS)
    return world


async def test_the_operator_sees_all_tenants(used: World) -> None:
    rows = (await used.ask("GET", "/admin/v1/usage", params={"by": "tenant"})).json()["data"]
    assert [(row["tenant"], row["requests"], row["usd"]) for row in rows] == [
        ("acme", 3, "0.003000000"),
        ("other", 1, "0.000000007"),
    ]
    one = await used.ask("GET", "/admin/v1/usage", params={"by": "model", "tenant": "acme"})
    assert {row["model"]: row["requests"] for row in one.json()["data"]} == {"big": 2, "small": 1}


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("model", ["big", "small"]),
        ("class", ["interactive"]),
        ("key", ["key1", "key2"]),
        ("label", ["", "=cmd()"]),
        ("endpoint", ["chat"]),
        ("spill", ["", "overload"]),
    ],
)
async def test_a_tenant_sees_its_own_by_anything(by: str, groups: list[str], used: World) -> None:
    own = used.keys["acme", Role.READ_ONLY]
    rows = (await used.ask("GET", "/v1/tenant/usage", own, params={"by": by})).json()["data"]
    assert [row[by] for row in rows] == groups
    assert sum(row["requests"] for row in rows) == 3


async def test_a_period_bounds_what_is_summed(used: World) -> None:
    own, path = used.keys["acme", Role.READ_ONLY], "/v1/tenant/usage"
    day = (await used.ask("GET", path, own, params={"by": "day"})).json()["data"]
    assert [row["requests"] for row in day] == [1, 2]
    later = {"by": "day", "since": day[1]["day"]}
    rows = (await used.ask("GET", path, own, params=later)).json()["data"]
    assert [(row["day"], row["requests"]) for row in rows] == [(day[1]["day"], 2)]
    before = {"by": "day", "until": day[1]["day"]}
    rows = (await used.ask("GET", path, own, params=before)).json()["data"]
    assert [row["requests"] for row in rows] == [1]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"by": "nonsense"}, "by"),
        ({"by": ""}, "by"),
        ({"by": "model,model"}, "by"),
        ({"by": "day,model,class,key,label"}, "by"),
        ({"since": "yesterday"}, "since"),
        ({"until": "99999999999d"}, "until"),
    ],
)
async def test_what_cannot_be_summed_is_a_400_that_names_it(
    query: dict[str, str], param: str, used: World
) -> None:
    answer = await used.ask("GET", "/admin/v1/usage", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


@pytest.mark.parametrize("how", ["format", "accept"])
async def test_a_table_has_the_same_rows_and_no_formulas(how: str, used: World) -> None:
    own = used.keys["acme", Role.READ_ONLY]
    more = (
        {"params": {"by": "label", "format": "csv"}}
        if how == "format"
        else {"params": {"by": "label"}, "headers": {"accept": "text/csv"}}
    )
    answer = await used.ask("GET", "/v1/tenant/usage", own, **more)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["label"], row["requests"]) for row in rows] == [("", "2"), ("'=cmd()", "1")]
    assert rows[0]["usd"] == "0.002000000"


async def test_what_was_paid_is_shared_exactly(used: World) -> None:
    report = (await used.ask("GET", "/admin/v1/cost", params={"by": "tenant"})).json()
    shared = sum(Decimal(row["cost_usd"]) for row in report["rows"])
    idle = sum(Decimal(pool["idle_usd"]) for pool in report["pools"])
    assert shared > 0
    assert shared + idle == Decimal(report["paid_usd"]) == Decimal("0.01")
    table = await used.ask("GET", "/admin/v1/cost", params={"by": "tenant", "format": "csv"})
    assert len(list(csv.DictReader(io.StringIO(table.text)))) == len(report["rows"])


async def test_a_tenant_is_not_told_what_replicas_cost(used: World) -> None:
    answer = await used.ask("GET", "/v1/tenant/cost", used.keys["acme", Role.TENANT_ADMIN])
    assert answer.status_code == 404


async def test_slos_are_reported(used: World) -> None:
    rows = (await used.ask("GET", "/admin/v1/slo", params={"by": "tenant,class"})).json()["data"]
    assert [(r["tenant"], r["met"], r["missed"], r["attained"]) for r in rows] == [
        ("acme", 1, 1, 0.5),
        ("other", 1, 0, 1.0),
    ]
    assert rows[0]["mean_ttft_ms"] == 2550.0
    own = (await used.ask("GET", "/v1/tenant/slo", used.keys["other", Role.READ_ONLY])).json()
    assert [(row["class"], row["met"]) for row in own["data"]] == [("interactive", 1)]
