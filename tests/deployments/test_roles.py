"""A replica's role for a while, and how the platform's own operators ask for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from deployments.gateway.gauges import set_own_gauges, set_shared_gauges
from deployments.gateway.role_changes import Replicas
from deployments.gateway.role_splits import RoleSplits
from deployments.pools import Membership, pools_of
from deployments.roles import RoleKeeper
from deployments.testing.words import word_encoder
from deployments.testing.world import KEY, TOKEN, World, http_world
from router.disaggregation.roles import RoleRefusedError
from weir.settings import Settings, parse_settings
from weir.tenancy import hash_key


def test_a_role_ends_by_itself() -> None:
    roles = RoleKeeper(changes=True)
    assert roles.now(0.0) is None
    roles.change("prefill", 10.0, for_s=60.0, epoch_s=1000.0)
    held = roles.now(69.0)
    assert held is not None
    assert (held.role, held.until) == ("prefill", 1060.0)
    assert roles.role(70.0) == "mixed"
    with pytest.raises(RoleRefusedError, match="again in 20 s"):
        roles.change("decode", 80.0)  # It has just changed back.
    roles.change("decode", 100.0)
    assert roles.now(1e9) is not None


def test_a_role_can_be_prolonged_at_once_and_taken_back_later() -> None:
    roles = RoleKeeper(changes=True)
    roles.change("prefill", 0.0, for_s=30.0)
    roles.change("prefill", 1.0, for_s=600.0)
    assert roles.role(500.0) == "prefill"
    with pytest.raises(RoleRefusedError):
        RoleKeeper(changes=True).change("prefill", 0.0, for_s=5.0)
    roles.change("mixed", 500.0)
    assert roles.now(500.0) is None


@pytest.mark.parametrize(
    ("membership", "changes"),
    [
        (Membership("a", "mixed", True), True),
        (Membership("a", "mixed", False), False),
        (Membership("a", "prefill", True), False),
        (Membership(), False),
    ],
)
def test_only_engines_that_can_do_both_halves_change(membership: Membership, changes: bool) -> None:
    assert membership.changes_role is changes
    assert membership.metadata().get("changes_role", False) is changes
    roles = membership.roles()
    if not changes:
        with pytest.raises(RoleRefusedError):
            roles.change("decode" if roles.own == "prefill" else "prefill", 0.0)


def settings(**pool: Any) -> Settings:
    pools = [{"name": "a", "replicas": 2, **pool}]
    tenants = [{"id": "t", "key_sha256": [hash_key(KEY)]}]
    return parse_settings(
        {"models": [{"name": "m", "source": "x", "pools": pools}], "tenants": tenants}, "test"
    )


def test_a_pool_whose_replicas_may_change_hands_over() -> None:
    assert not pools_of(settings().models[0])[0].hands_off
    assert pools_of(settings(changes_role=True).models[0])[0].kv_transfer()


async def _asked(world: World, body: dict[str, Any], token: str = TOKEN) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {token}"}
    async with world.session.post(f"{world.url}/weir/roles", json=body, headers=headers) as answer:
        return answer.status, await answer.json()


def _roles(world: World) -> dict[str, str]:
    return {info.replica_id: info.role for info in world.model.router.members}


def test_the_platform_changes_roles(tmp_path: Path) -> None:
    async def main() -> None:
        encoders = {"m": word_encoder(tmp_path)}
        async with http_world(settings(changes_role=True), encoders) as world:
            for name in ("r1", "r2", "r3"):
                await world.add_replica(name, changes_role=True, pool="a")
            one = {"model": "m", "pool": "a", "replica": "r2", "role": "prefill"}
            status, told = await _asked(world, one)
            assert (status, told["changes"]) == (200, [{"replica_id": "r2", "role": "prefill"}])
            assert _roles(world) == {"r1": "mixed", "r2": "prefill", "r3": "mixed"}
            assert world.model.router.places
            await _refusals(world, one)
            set_own_gauges(world.gateway)
            set_shared_gauges(world.gateway)
            gauge = world.gateway.metrics.replicas_by_role
            assert gauge.labels("m", "a", "mixed")._value.get() == 2
            assert world.gateway.metrics.role_changes.labels("m", "prefill")._value.get() == 1

    asyncio.run(main())


async def _refusals(world: World, one: dict[str, Any]) -> None:
    assert (await _asked(world, one, "wrong"))[0] == 401
    assert (await _asked(world, {**one, "model": "x"}))[0] == 404
    assert (await _asked(world, {**one, "replica": "x"}))[0] == 404
    assert (await _asked(world, {**one, "pool": "x"}))[0] == 404
    assert (await _asked(world, {**one, "count": 1}))[0] == 400
    assert (await _asked(world, {**one, "role": "both"}))[0] == 400
    short = {"model": "m", "count": 2, "role": "prefill", "for_s": -1}
    assert (await _asked(world, short))[0] == 400
    status, told = await _asked(world, {"model": "m", "count": 3, "role": "prefill"})
    assert status == 409
    assert "the last one that answers" in told["error"]["message"]
    assert _roles(world) == {"r1": "mixed", "r2": "prefill", "r3": "mixed"}


def test_a_pool_is_split_as_the_autoscaler_says_and_stays_so(tmp_path: Path) -> None:
    async def main() -> None:
        encoders = {"m": word_encoder(tmp_path)}
        async with http_world(settings(changes_role="by_demand"), encoders) as world:
            for name in ("r1", "r2", "r3"):
                await world.add_replica(name, changes_role=True, pool="a")
            clock = _Clock()
            replicas = Replicas(world.session, TOKEN)
            splits = RoleSplits({"m": world.model}, replicas, None, clock)
            await splits.keep({"m": {"a": 1}, "gone": {"a": 1}})
            assert _roles(world) == {"r1": "prefill", "r2": "decode", "r3": "decode"}
            await splits.keep({"m": {"a": 2}})  # all have just changed
            assert _roles(world) == {"r1": "prefill", "r2": "decode", "r3": "decode"}
            until = [_until(world, name) for name in ("r1", "r2", "r3")]
            clock.now_s += 400.0
            await splits.keep({"m": {"a": 1}})
            await asyncio.sleep(0.1)
            assert all(
                later > before
                for before, later in zip(
                    until, [_until(world, name) for name in ("r1", "r2", "r3")], strict=True
                )
            )
            status, told = await _asked(world, {"model": "m", "pool": "a", "split": 3})
            assert (status, "at least one has to answer" in told["error"]["message"]) == (409, True)
            both = {"model": "m", "pool": "a", "split": 1, "role": "prefill"}
            assert (await _asked(world, both))[0] == 400

    asyncio.run(main())


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _until(world: World, replica: str) -> float:
    load = world.model.fleet.loads[replica]
    assert load.role_until is not None
    return load.role_until
