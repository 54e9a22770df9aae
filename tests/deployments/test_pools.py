"""Pools as Ray Serve deploys them, and as gateway and router see them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployments.gateway.fleet import _PoolMembers
from deployments.names import model_deployment
from deployments.pools import LEASE_S, Pool, pools_of
from deployments.versions import model_version
from router.policy import build_policy
from router.router import Router
from router.types import ReplicaInfo
from weir.settings import ModelSettings, Settings, load_settings, parse_settings


def settings_of(*pools: dict[str, Any], **model: Any) -> Settings:
    tree = {"name": "a/m", "source": "x", "pools": list(pools), **model}
    return parse_settings({"models": [tree]}, "test")


def pair(**prefill: Any) -> Settings:
    return settings_of({"name": "p", "role": "prefill", **prefill}, {"name": "d", "role": "decode"})


def test_a_model_without_pools_is_one_deployment_under_its_own_name() -> None:
    (pool,) = pools_of(ModelSettings(name="a/m", source="x"))
    assert pool.deployment == model_deployment("a/m") == "model-a--m"
    assert (pool.name, pool.role, pool.hands_off, pool.kv_transfer()) == ("", "mixed", False, None)


def test_each_pool_is_a_deployment() -> None:
    pools = pools_of(pair().models[0])
    assert [pool.deployment for pool in pools] == ["model-a--m+p", "model-a--m+d"]


def test_roles_come_with_what_handing_over_needs() -> None:
    mixed = {"name": "x"}
    settings = settings_of({"name": "p", "role": "prefill"}, {"name": "d", "role": "decode"}, mixed)
    transfers = [pool.kv_transfer() or {} for pool in pools_of(settings.models[0])]
    assert [t["kv_role"] for t in transfers] == ["kv_producer", "kv_consumer", "kv_both"]
    for transfer in transfers:
        assert transfer["kv_connector"] == "NixlConnector"
        assert transfer["kv_load_failure_policy"] == "recompute"
        assert transfer["kv_buffer_device"] == "cpu"
        assert transfer["kv_connector_extra_config"] == {"kv_lease_duration": LEASE_S}
        assert transfer["kv_connector_module_path"] == "deployments.patient_nixl"


def test_mixed_pools_hand_over_only_where_the_rule_makes_pairs_of_them() -> None:
    apart = settings_of({"name": "x"}, {"name": "y", "market": "spot"})
    assert [pool.kv_transfer() for pool in pools_of(apart.models[0])] == [None, None]
    routing = {"disaggregation": {"params": {"pairs_of_mixed": True}}}
    (pool,) = pools_of(settings_of({"name": "x"}, routing=routing).models[0])
    assert pool.kv_transfer()["kv_role"] == "kv_both"  # type: ignore[index]


def test_vllms_own_nixl_connector_is_had_by_its_module() -> None:
    module = "vllm.distributed.kv_transfer.kv_connector.v1.nixl"
    given = {"kv_connector": "NixlConnector", "kv_connector_module_path": module}
    first = pools_of(pair(engine={"args": {"kv_transfer_config": given}}).models[0])[0]
    transfer = first.kv_transfer()
    assert transfer is not None
    assert transfer["kv_connector_module_path"] == module


def test_another_connector_is_taken_as_given() -> None:
    given = {"kv_connector": "MooncakeConnector", "kv_buffer_size": 5}
    settings = pair(engine={"args": {"kv_transfer_config": given}})
    first, second = (pool.kv_transfer() for pool in pools_of(settings.models[0]))
    assert second is not None
    assert first == {**given, "kv_role": "kv_producer", "kv_load_failure_policy": "recompute",
                     "kv_buffer_device": "cpu"}  # fmt: skip
    assert second["kv_connector"] == "NixlConnector"


class TestVersions:
    def versions(self, settings: Settings) -> list[str]:
        return [model_version(pool, settings, []) for pool in pools_of(settings.models[0])]

    def test_scaling_a_pool_changes_none(self) -> None:
        assert self.versions(pair()) == self.versions(pair(replicas=5))

    def test_a_pools_own_settings_are_its_version(self) -> None:
        before, after = self.versions(pair()), self.versions(pair(num_cpus=3))
        assert before[0] != after[0]
        assert before[1] == after[1]

    def test_so_is_its_role(self) -> None:
        model = pair().models[0]
        prefill = pools_of(model)[0]
        mixed = Pool(prefill.model, prefill.name, "mixed", hands_off=True)
        assert model_version(prefill, pair(), []) != model_version(mixed, pair(), [])

    def test_a_model_without_pools_has_the_version_that_it_had(self) -> None:
        settings = load_settings("laptop")
        model = settings.models[0]
        tree = model.model_dump(mode="json", exclude={"replicas", "autoscaling", "pools"})
        assert "pools" not in tree
        assert model_version(Pool(model), settings, []) == model_version(
            Pool(model.model_copy(update={"replicas": 9})), settings, []
        )


def test_every_pool_fills_its_part_of_one_router() -> None:
    router = Router(build_policy("weir"), lambda: 0.0, random.Random(0))
    changes: list[int] = []
    router.listeners.append(lambda old, new: changes.append(len(new)))
    prefill, decode = _PoolMembers(router, "p"), _PoolMembers(router, "d")
    prefill.set_replicas([ReplicaInfo("a", role="prefill")])
    decode.set_replicas([ReplicaInfo("b", role="decode"), ReplicaInfo("c", role="decode")])
    prefill.set_replicas([ReplicaInfo("a", role="prefill")])
    assert {(i.replica_id, i.pool, i.role) for i in router.members} == {
        ("a", "p", "prefill"),
        ("b", "d", "decode"),
        ("c", "d", "decode"),
    }
    decode.set_replicas([ReplicaInfo("c", role="decode")])
    assert sorted(info.replica_id for info in router.members) == ["a", "c"]
    assert changes == [1, 3, 2]


# Ray's imports warn in ways that are not ours to fix.
_SCRIPT = """
import json, sys
from deployments.deploy import (
    _gateway_nodes, _nodes, _pool, _replicas, application, gateway_view, llm_config)
from deployments.pools import pools_of
from deployments.versions import gateway_version
from weir.settings import parse_settings

GPU = {"accelerator": "H100"}

def settings_of(*pools, address="local", labels=False, **model):
    tree = {"name": "a/m", "source": "x", "pools": list(pools), **model}
    ray = {"address": address, "pool_labels": labels}
    return parse_settings({"models": [tree], "ray": ray}, "test")

def pair(prefill={}, decode={}, **more):
    return settings_of({"name": "p", "role": "prefill", **prefill},
                       {"name": "d", "role": "decode", **decode}, **more)

def configs(settings):
    return [llm_config(pool, settings) for pool in pools_of(settings.models[0])]

def bundles(settings, number):
    options = _pool(pools_of(settings.models[0])[number], settings)._bound_deployment
    config = options._replica_config
    return [config.placement_group_bundles, config.placement_group_bundle_label_selector]

def version(settings):
    return gateway_version(gateway_view(settings), {})

def scaled(least=1, most=2, policy="weir"):
    bounds = {"min_replicas": least, "max_replicas": most}
    return parse_settings({"models": [{"name": "m", "source": "x", "autoscaling": bounds}],
                           "autoscaling": {"policy": policy}}, "test")

parallel = pair({"parallel": {"tensor": 4, "pipeline": 2}, **GPU},
                {"parallel": {"data": 8, "experts": True}, **GPU})
alone = settings_of(parallel={"tensor": 2}, num_cpus=3)
spot = {"market": "spot", **GPU}
out = {
    "names": [c.deployment_config["name"] for c in configs(pair())],
    "connectors": [c.engine_kwargs["kv_transfer_config"]["kv_role"] for c in configs(pair())],
    "alone": [configs(alone)[0].deployment_config["name"], sorted(configs(alone)[0].engine_kwargs),
              configs(alone)[0].placement_group_config],
    "parallel": [{k: c.engine_kwargs.get(k) for k in (
        "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size",
        "enable_expert_parallel")} for c in configs(parallel)],
    "accelerators": [c.accelerator_type for c in configs(parallel)],
    "spot": [bundles(pair(spot, GPU, address="ray://x"), n)[1] for n in (0, 1)],
    "spot_bundles": len(bundles(pair(spot, GPU, address="ray://x"), 0)[0]),
    "spot_on_one_machine": _nodes(pools_of(pair(spot).models[0])[0], pair(spot)),
    "labels": [bundles(pair(spot, GPU, address="auto", labels=True), n)[1][0] for n in (0, 1)],
    "gateways": [_gateway_nodes(settings_of(address=to, labels=True)) for to in ("auto", "local")],
    "workers": len(bundles(parallel, 0)[0]),
    "application": application(pair(engine={"mode": "stub"})) is not None,
    "same_gateway": version(pair()) == version(pair({"replicas": 3, "num_cpus": 2})),
    "other_gateway": version(pair()) == version(settings_of({"name": "x"})),
    "bounds": len({version(scaled(**each)) for each in (
        {"most": 2}, {"most": 9}, {"policy": "kpa"}, {"least": 2})}),
    "sleeping": version(scaled(least=0)) != version(scaled(least=1)),
    "serve": [_replicas(pool, scaled(most=5))["autoscaling_config"]
              for pool in pools_of(scaled(most=5).models[0])],
    "wanted": [gateway_view(pair({"replicas": 0}, {"replicas": n})).models[0].replicas
               for n in (0, 3)],
}
print("RESULT" + json.dumps(out))
"""


@pytest.fixture(scope="module")
def out(repo_root: Path, package_env: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        cwd=repo_root,
        env=package_env,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, done.stderr[-4000:]
    return dict(json.loads(lines[0].removeprefix("RESULT")))


@pytest.mark.engine
class TestRendered:
    """What Ray Serve is given."""

    def test_a_deployment_for_each_pool(self, out: dict[str, Any]) -> None:
        assert out["names"] == ["model-a--m+p", "model-a--m+d"]
        assert out["connectors"] == ["kv_producer", "kv_consumer"]
        assert out["application"]

    def test_without_pools_nothing_is_different(self, out: dict[str, Any]) -> None:
        name, arguments, placement = out["alone"]
        assert name == "model-a--m"
        assert "kv_transfer_config" not in arguments
        assert placement == {"bundles": [{"CPU": 3.0}] * 2, "strategy": "PACK"}

    def test_parallel_engines(self, out: dict[str, Any]) -> None:
        prefill, decode = out["parallel"]
        assert (prefill["tensor_parallel_size"], prefill["pipeline_parallel_size"]) == (4, 2)
        assert prefill["data_parallel_size"] is None
        assert (decode["data_parallel_size"], decode["enable_expert_parallel"]) == (8, True)
        assert out["accelerators"] == ["H100", "H100"]
        # A bundle for each worker, which Ray may place on several nodes.
        assert out["workers"] == 8

    def test_spot_capacity_is_asked_for_where_there_is_a_choice(self, out: dict[str, Any]) -> None:
        label = {"ray.io/market-type": "spot"}
        assert out["spot"] == [[label] * out["spot_bundles"], None]
        assert out["spot_on_one_machine"] == {}

    def test_pools_and_gateways_stay_on_nodes_with_their_label(self, out: dict[str, Any]) -> None:
        market = {"ray.io/market-type": "spot"}
        assert out["labels"] == [{"weir/pool": "a--m.p", **market}, {"weir/pool": "a--m.d"}]
        cluster, one_machine = out["gateways"]
        assert cluster["ray_actor_options"]["label_selector"] == {"weir/pool": "gateway"}
        assert cluster["max_replicas_per_node"] == 1
        assert one_machine == {"ray_actor_options": {"num_cpus": 0.0}}

    def test_a_gateway_restarts_for_another_set_of_pools_only(self, out: dict[str, Any]) -> None:
        assert out["same_gateway"]
        assert not out["other_gateway"]

    def test_a_gateway_waits_where_a_pool_has_replicas(self, out: dict[str, Any]) -> None:
        assert out["wanted"] == [0, 1]

    def test_bounds_and_policies_restart_no_gateway(self, out: dict[str, Any]) -> None:
        assert out["bounds"] == 1
        assert out["sleeping"]  # it has to hold requests from then on

    def test_serve_follows_what_is_decided_elsewhere(self, out: dict[str, Any]) -> None:
        (told,) = out["serve"]
        assert (told["min_replicas"], told["max_replicas"], told["initial_replicas"]) == (1, 5, 1)
        assert told["policy"]["policy_function"] == "deployments.autoscaling:DecidedReplicas"
        assert told["policy"]["policy_kwargs"]["deployment"] == "model-m"
        assert told["upscale_delay_s"] == told["downscale_delay_s"] == 0.0
