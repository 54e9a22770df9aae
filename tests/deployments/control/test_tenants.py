"""Tenants, keys, quotas and budgets over the API: what is changed is there, in the log, and with
its version."""

from __future__ import annotations

import asyncio

import pytest

from tests.deployments.control.routes import operations
from tests.deployments.control.world import OPERATOR, START_S, World
from weir.tenancy import Role
from weir.tenancy.audit import read_audit

_NEW = {"id": "shop", "weight": 2.5, "quotas": {"requests_per_minute": 60}, "labels": {"a": "b"}}


async def test_a_tenant_is_made_read_changed_and_deleted(world: World) -> None:
    made = await world.ask("POST", "/admin/v1/tenants", json=_NEW)
    assert made.status_code == 201, made.text
    assert made.headers["location"] == "/admin/v1/tenants/shop"
    assert made.headers["etag"] == '"1"'
    assert made.json()["quotas"]["requests_per_minute"] == 60
    read = await world.ask("GET", "/admin/v1/tenants/shop")
    assert read.json() == made.json()
    changes = {"weight": None, "quotas": {"requests_per_day": 5}, "retention_days": 3}
    changed = await world.ask(
        "PATCH", "/admin/v1/tenants/shop", json=changes, headers={"if-match": '"1"'}
    )
    assert changed.status_code == 200, changed.text
    assert changed.headers["etag"] == '"2"'
    body = changed.json()
    assert (body["weight"], body["retention_days"]) == (None, 3)
    assert body["quotas"]["requests_per_minute"] == 60  # merged
    assert body["quotas"]["requests_per_day"] == 5
    gone = await world.ask("DELETE", "/admin/v1/tenants/shop", headers={"if-match": '"2"'})
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await world.ask("GET", "/admin/v1/tenants/shop")).status_code == 404
    again = await world.ask("POST", "/admin/v1/tenants", json=_NEW)
    assert (again.status_code, again.json()["error"]["param"]) == (409, "id")


async def test_tenants_are_listed_page_by_page_those_of_the_settings_among_them(
    world: World,
) -> None:
    for name in ("aaa", "mmm", "zzz"):
        await world.ask("POST", "/admin/v1/tenants", json={"id": name})
    seen: list[str] = []
    query: dict[str, str] = {"limit": "2"}
    for _ in range(10):
        page = (await world.ask("GET", "/admin/v1/tenants", params=query)).json()
        assert len(page["data"]) <= 2
        seen += [each["id"] for each in page["data"]]
        assert page["has_more"] == (page["next"] is not None)
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert seen == ["aaa", "acme", "listed", "mmm", "other", "zzz"]


@pytest.mark.parametrize("after", ["!", "W10", "bnVsbA", "WyJhIiwxXQ", "WzFd", "W3RydWVd", "e30"])
async def test_a_cursor_that_is_none_of_the_list_is_a_400(after: str, world: World) -> None:
    answer = await world.ask("GET", "/admin/v1/tenants", params={"after": after})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")


async def test_a_tenant_of_the_settings_is_not_changed_here(world: World) -> None:
    headers = {"if-match": "*"}
    for method, path in (("PATCH", ""), ("DELETE", ""), ("PUT", "/quotas"), ("PUT", "/budget")):
        body = {"usd_per_month": "1"} if path == "/budget" else {}
        more = {} if method == "DELETE" else {"json": body}
        answer = await world.ask(method, f"/admin/v1/tenants/listed{path}", headers=headers, **more)
        assert answer.status_code in (404, 409), answer.text
    key = await world.ask("POST", "/admin/v1/tenants/listed/keys", json={})
    assert key.status_code in (404, 409)


async def test_a_key_is_shown_once_and_works_until_it_is_revoked(world: World) -> None:
    body = {"name": "ci", "role": "tenant-user", "models": ["big"]}
    made = await world.ask("POST", "/admin/v1/tenants/acme/keys", json=body)
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    secret, name = made.json()["secret"], made.json()["id"]
    read = await world.ask("GET", f"/admin/v1/tenants/acme/keys/{name}")
    assert read.status_code == 200
    assert secret not in read.text
    assert "digest" not in read.text
    assert (await world.ask("GET", "/v1/tenant", secret)).status_code == 200
    gone = await world.ask("DELETE", f"/admin/v1/tenants/acme/keys/{name}")
    assert gone.json()["revoked_s"] == START_S
    assert (await world.ask("GET", "/v1/tenant", secret)).status_code == 401
    again = await world.ask("DELETE", f"/admin/v1/tenants/acme/keys/{name}")
    assert (again.status_code, again.json()) == (200, gone.json())


async def test_a_rotated_key_goes_on_for_its_overlap(world: World) -> None:
    old = world.keys["acme", Role.TENANT_USER]
    path = f"/admin/v1/tenants/acme/keys/{world.ids['acme', Role.TENANT_USER]}/rotate"
    made = await world.ask("POST", path, json={"overlap_s": 60})
    assert made.status_code == 201, made.text
    assert made.json()["replaces"] == world.ids["acme", Role.TENANT_USER]
    new = made.json()["secret"]
    for key in (old, new):
        assert (await world.ask("GET", "/v1/tenant", key)).status_code == 200
    world.clock.now_s += 60
    assert (await world.ask("GET", "/v1/tenant", old)).status_code == 401
    assert (await world.ask("GET", "/v1/tenant", new)).status_code == 200


async def test_a_tenants_admin_has_no_hand_in_stronger_keys(world: World) -> None:
    own = world.keys["acme", Role.TENANT_ADMIN]
    admins = world.ids["acme", Role.ADMIN]
    asked = [
        ("POST", "/v1/tenant/keys", {"role": "admin"}),
        ("PATCH", f"/v1/tenant/keys/{world.ids['acme', Role.READ_ONLY]}", {"role": "admin"}),
        ("PATCH", f"/v1/tenant/keys/{admins}", {"name": "mine"}),
        ("PATCH", f"/v1/tenant/keys/{admins}", {"role": "read-only"}),
        ("POST", f"/v1/tenant/keys/{admins}/rotate", {}),
        ("DELETE", f"/v1/tenant/keys/{admins}", None),
    ]
    before = [world.store.key(name) for name in world.ids.values()]
    for method, path, body in asked:
        more = {} if body is None else {"json": body}
        answer = await world.ask(method, path, own, headers={"if-match": "*"}, **more)
        assert answer.status_code == 403, (method, path, answer.text)
    assert [world.store.key(name) for name in world.ids.values()] == before
    assert len(world.store.keys("acme").items) == len(Role)
    good = await world.ask("POST", "/v1/tenant/keys", own, json={"role": "tenant-admin"})
    assert good.status_code == 201


async def test_quotas_and_budget_are_replaced_whole(world: World) -> None:
    path, version = "/admin/v1/tenants/acme", 1

    async def put(method: str, below: str, body: object = None) -> None:
        nonlocal version
        more = {} if body is None else {"json": body}
        headers = {"if-match": f'"{version}"'}
        answer = await world.ask(method, path + below, headers=headers, **more)
        assert answer.status_code == 200, answer.text
        version += 1
        assert answer.headers["etag"] == f'"{version}"'

    await put("PUT", "/quotas", {"requests_per_minute": 1, "requests_per_day": 2})
    await put("PUT", "/quotas", {"requests_per_day": 3})
    await put("PUT", "/quotas/models/org/model.v1", {"concurrent_requests": 4})
    await put("PUT", "/quotas/models/big", {"concurrent_requests": 5})
    await put("DELETE", "/quotas/models/big")
    read = await world.ask("GET", f"{path}/quotas")
    quotas = read.json()
    assert quotas["tenant"]["requests_per_minute"] is None
    assert quotas["tenant"]["requests_per_day"] == 3
    assert set(quotas["models"]) == {"org/model.v1"}
    assert read.headers["etag"] == f'"{version}"'
    await put("PUT", "/budget", {"usd_per_month": "10.000000001", "webhook_url": "https://a.b/c"})
    await put("PUT", "/budget", {"usd_per_month": 0.1})
    budget = (await world.ask("GET", f"{path}/budget")).json()["budget"]
    assert (budget["usd_per_month"], budget["webhook_url"]) == ("0.1", None)
    own = await world.ask("GET", "/v1/tenant/budget", world.keys["acme", Role.READ_ONLY])
    assert own.json()["budget"] == budget
    await put("DELETE", "/budget")
    assert (await world.ask("GET", f"{path}/budget")).json()["budget"] is None


async def test_who_has_it_already_is_told_so(world: World) -> None:
    path = "/admin/v1/tenants/acme"
    tag = (await world.ask("GET", path)).headers["etag"]
    same = await world.ask("GET", path, headers={"if-none-match": f'"99", {tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    other = await world.ask("GET", path, headers={"if-none-match": '"99"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("tag", "status"),
    [(None, 428), ("", 428), ('"7"', 412), ('W/"1"', 412), ("1", 412), ('"x"', 412), ("*", 200)],
)
async def test_a_change_says_which_version_it_changes(
    tag: str | None, status: int, world: World
) -> None:
    headers = {} if tag is None else {"if-match": tag}
    answer = await world.ask("PATCH", "/admin/v1/tenants/acme", json={"weight": 3}, headers=headers)
    assert answer.status_code == status, answer.text
    weight = world.store.tenant("acme").tenant.weight
    assert weight == (3 if status == 200 else None)


async def test_of_changes_of_one_version_at_once_one_wins(world: World) -> None:
    answers = await asyncio.gather(
        *(
            world.ask(
                "PATCH",
                "/admin/v1/tenants/acme",
                json={"weight": number + 1},
                headers={"if-match": '"1"'},
            )
            for number in range(12)
        )
    )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] + [412] * 11
    won = next(answer for answer in answers if answer.status_code == 200)
    stored = world.store.tenant("acme")
    assert (stored.version, stored.tenant.weight) == (2, won.json()["weight"])


async def test_every_change_is_in_the_log_with_who_and_what(world: World) -> None:
    changing = [each for each in operations(world.app) if each.method != "GET"]
    assert len(changing) > 15
    await world.ask("POST", "/admin/v1/tenants", json={"id": "shop"})
    made = await world.ask("POST", "/admin/v1/tenants/shop/keys", json={"name": "a"})
    name = made.json()["id"]
    headers = {"if-match": "*"}
    await world.ask("PATCH", "/admin/v1/tenants/shop", json={"weight": 2}, headers=headers)
    await world.ask("DELETE", f"/admin/v1/tenants/shop/keys/{name}")
    log = (await world.ask("GET", "/admin/v1/audit", params={"tenant": "shop"})).json()["data"]
    told = [(each["action"], each["target"]) for each in log]
    assert told == [
        ("key.revoke", f"key:{name}"),
        ("tenant.update", "tenant:shop"),
        ("key.create", f"key:{name}"),
        ("tenant.create", "tenant:shop"),
    ]
    assert {each["actor"][:9] for each in log} == {"operator:"}
    update = log[1]
    assert (update["before"]["weight"], update["after"]["weight"]) == (None, 2.0)
    assert made.json()["secret"] not in str(log)


async def test_a_tenant_sees_its_own_part_of_the_log(world: World) -> None:
    own = world.keys["acme", Role.TENANT_ADMIN]
    await world.ask("POST", "/v1/tenant/keys", own, json={"name": "mine"})
    log = (await world.ask("GET", "/v1/tenant/audit", own, params={"limit": 2})).json()
    assert log["data"][0]["actor"] == f"key:{world.ids['acme', Role.TENANT_ADMIN]}"
    assert {each["tenant"] for each in log["data"]} == {"acme"}
    following = await world.ask("GET", "/v1/tenant/audit", own, params={"after": log["next"]})
    assert following.json()["data"][0]["id"] < log["data"][-1]["id"]
    everything = read_audit(world.store.engine)
    assert {each.tenant_id for each in everything.items} == {"acme", "other"}


async def test_models_have_prices_and_a_tenant_sees_only_its_own(world: World) -> None:
    models = (await world.ask("GET", "/admin/v1/models", OPERATOR)).json()["data"]
    assert [each["name"] for each in models] == ["big", "small"]
    assert models[0]["price"]["replica_usd_per_hour"] == "2.5"
    assert models[0]["student"] == "small"
    listed = (await world.ask("GET", "/admin/v1/tenants/listed/models")).json()["data"]
    assert [each["name"] for each in listed] == ["big"]
    assert "replica_usd_per_hour" not in listed[0]["price"]
    assert listed[0]["price"]["input_usd_per_million_tokens"] == "0.1"
    assert listed[0]["adapters"] == ["big:open", "big:own"]
    own = world.keys["acme", Role.READ_ONLY]
    adapters = (await world.ask("GET", "/v1/tenant/adapters", own)).json()["data"]
    assert [each["name"] for each in adapters] == ["big:open"]
    assert "/adapters" not in str(adapters)
    everything = (await world.ask("GET", "/admin/v1/adapters")).json()["data"]
    assert [each["tenants"] for each in everything] == [[], ["listed"]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"id": "No Good"}, "id"),
        ({"id": "a", "nonsense": 1}, "nonsense"),
        ({"id": "a", "budget": {"usd_per_month": -1}}, "budget.usd_per_month"),
        ({"id": "a", "quotas": {"requests_per_minute": -1}}, "quotas.requests_per_minute"),
        ({}, "id"),
        ([], None),
    ],
)
async def test_a_wrong_body_is_a_400_that_names_the_field(
    body: object, field: str | None, world: World
) -> None:
    answer = await world.ask("POST", "/admin/v1/tenants", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", field)


async def test_bodies_are_bounded(world: World) -> None:
    large = b'{"id": "' + b"x" * 300_000 + b'"}'
    for key in (OPERATOR, None):
        answer = await world.ask("POST", "/admin/v1/tenants", key, content=large)
        assert answer.status_code == 413
    deep = b"[" * 100_000
    assert (await world.ask("POST", "/admin/v1/tenants", content=deep)).status_code == 400


async def test_unknown_paths_and_methods(world: World) -> None:
    nothing = await world.ask("GET", "/admin/v1/nothing")
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (404, "not_found")
    wrong = await world.ask("PUT", "/admin/v1/tenants")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"]


async def test_an_answer_has_the_requests_id(world: World) -> None:
    given = await world.ask("GET", "/v1/tenant", None, headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    made = await world.ask("GET", "/v1/tenant", None, headers={"x-request-id": "not usable!"})
    assert made.headers["x-request-id"] not in ("", "not usable!")
