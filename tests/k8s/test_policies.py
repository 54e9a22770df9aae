"""What a platform team asks of every chart, and what weir promises of this one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.k8s.conftest import Objects, as_json, of_kind, pod_specs

_PINNED = re.compile(r"^[^:@]+(:[0-9]+)?/[^:@]+(:(?!latest$)[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})$")
# A variable's or key's name that is a secret's.
_SECRET = re.compile(r"token|password|secret|credential|api.?key|access.?key", re.IGNORECASE)


def containers(made: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, _, spec in pod_specs(made):
        for each in (*spec.get("initContainers", ()), *spec["containers"]):
            yield f"{where}/{each['name']}", each


def test_images_are_pinned(made: Objects) -> None:
    for where, container in containers(made):
        assert _PINNED.match(container["image"]), f"{where}: {container['image']}"


def test_limits_and_requests_are_set(made: Objects) -> None:
    for where, container in containers(made):
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["limits"].keys(), where
        assert {"cpu", "memory"} <= resources["requests"].keys(), where


def test_nobody_has_rights(made: Objects) -> None:
    for where, _, spec in pod_specs(made):
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"], where
        assert pod["runAsUser"] > 0, where
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), where
        assert all("hostPath" not in volume for volume in spec.get("volumes", ())), where
    for where, container in containers(made):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, where
        assert security["readOnlyRootFilesystem"] is True, where
        assert security["capabilities"] == {"drop": ["ALL"]}, where


def test_what_is_written_to_is_a_volume(made: Objects) -> None:
    """The root cannot be written: each volume that is mounted exists, and /tmp is one."""
    for where, _, spec in pod_specs(made):
        known = {volume["name"] for volume in spec.get("volumes", ())}
        claimed = {"data"}  # of the claim templates of Redis
        for each in (*spec.get("initContainers", ()), *spec["containers"]):
            mounts = {mount["mountPath"]: mount["name"] for mount in each["volumeMounts"]}
            assert set(mounts.values()) <= known | claimed, where
            assert "/tmp" in mounts, where


def test_no_secret_is_in_clear(made: Objects, text: str) -> None:
    assert not of_kind(made, "Secret")
    for where, container in containers(made):
        for variable in container.get("env", ()):
            if "value" in variable and _SECRET.search(variable["name"]):
                pytest.fail(f"{where}: {variable['name']} has its value in clear")
    assert not re.search(r"://[^$/\s\"]*:[^$/\s\"@]+@", text), "a URL with a password"


def test_settings_carry_no_secret(made: Objects) -> None:
    (config,) = [
        each for each in of_kind(made, "ConfigMap") if each["metadata"]["name"].endswith("settings")
    ]
    settings = yaml.safe_load(config["data"]["settings.yaml"])
    assert "@" not in settings["redis"]["url"]
    assert "url" not in settings.get("database", {})


def test_few_talk_to_kubernetes_and_may_do_little(made: Objects, values: str) -> None:
    """Ray's autoscaler, and replicas of pools that look at their nodes for notices."""
    tokens = [
        where
        for where, _, spec in pod_specs(made)
        if spec.get("automountServiceAccountToken", True)
    ]
    rights = {
        (each["kind"], name, verb)
        for kind in ("Role", "ClusterRole")
        for each in of_kind(made, kind)
        for rule in each["rules"]
        for name in rule["resources"]
        for verb in rule["verbs"]
    }
    if values != "production":
        assert tokens == []
        assert rights == set()
        return
    assert [each.rpartition("/")[2] for each in tokens] == ["head", "llama-3-3-70b-spot"]
    assert rights == {
        *(("Role", "pods", verb) for verb in ("get", "list", "watch")),
        *(("Role", "rayclusters", verb) for verb in ("get", "patch")),
        ("ClusterRole", "nodes", "get"),
    }


def test_each_pod_has_an_account_that_exists(made: Objects) -> None:
    known = {each["metadata"]["name"] for each in of_kind(made, "ServiceAccount")}
    for where, _, spec in pod_specs(made):
        assert spec["serviceAccountName"] in known, where


def selected(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


def test_every_pod_is_denied_everything_but_what_a_policy_of_its_own_says(made: Objects) -> None:
    policies = of_kind(made, "NetworkPolicy")
    (nothing,) = [each for each in policies if each["metadata"]["name"].endswith("-nothing")]
    assert set(nothing["spec"]) == {"podSelector", "policyTypes"}
    for where, labels, _ in pod_specs(made):
        own = [each for each in policies if selected(each["spec"]["podSelector"], labels)]
        names = {each["metadata"]["name"].removeprefix("weir-") for each in own}
        component = labels["app.kubernetes.io/component"]
        further = {"notices-kubernetes", "autoscaler"}  # only what they may ask
        assert names - further == {"nothing", "names", component}, where


def reached(made: Objects, component: str, port: int) -> set[str]:
    """Which components, or what else, may open a connection to a component's port."""
    (policy,) = [
        each
        for each in of_kind(made, "NetworkPolicy")
        if each["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
        == component
    ]
    found = set()
    for rule in policy["spec"]["ingress"]:
        ports = [(each["port"], each.get("endPort", each["port"])) for each in rule["ports"]]
        if any(first <= port <= last for first, last in ports):
            for peer in rule.get("from", [{}]):
                labels = peer.get("podSelector", {}).get("matchLabels", {})
                name = labels.get("app.kubernetes.io/component")
                found.add(name or as_json(peer))
    return found


def test_replicas_are_reached_by_gateways_only(made: Objects) -> None:
    """And by other replicas, to which they hand KV blocks over; by Ray on Ray's own ports."""
    assert reached(made, "model", 45_000) == {"gateway", "model"}
    assert reached(made, "model", 6380) == {"head", "gateway", "model"}
    assert reached(made, "gateway", 30_000) == {"front-door", "gateway"}  # for metrics
    assert reached(made, "gateway", 45_000) == set()
    assert reached(made, "control", 8080) == {"gateway"}


def test_redis_is_reached_by_who_needs_it(objects_of: Callable[[str], Objects]) -> None:
    assert reached(objects_of("laptop"), "redis", 6379) == {"head", "gateway", "control", "job"}


def test_ports_of_ray_and_of_replicas_do_not_meet(made: Objects) -> None:
    for group in ray(made)["workerGroupSpecs"]:
        named = {name: int(port) for name, port in group["rayStartParams"].items()}
        del named["metrics-export-port"]  # Prometheus' own
        ports = named.values()
        assert len(ports) == 7
        for port in ports:
            assert "head" in reached(made, "model", port), port
            assert port < 30_000 or port == 52_365


def test_several_of_everything_that_clients_pass(made: Objects) -> None:
    gateways = [
        group
        for group in ray(made)["workerGroupSpecs"]
        if group["labels"]["weir/pool"] == "gateway"
    ]
    assert all(group["minReplicas"] == group["replicas"] >= 2 for group in gateways)
    fronts = [d for d in of_kind(made, "Deployment") if "front" in d["metadata"]["name"]]
    assert all(each["spec"]["replicas"] >= 2 for each in fronts)
    for each in fronts:
        keys = {
            spread["topologyKey"]
            for spread in each["spec"]["template"]["spec"]["topologySpreadConstraints"]
        }
        assert keys == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    budgets = [each["spec"]["selector"] for each in of_kind(made, "PodDisruptionBudget")]
    for where, labels, _ in pod_specs([*fronts, *of_kind(made, "RayService")]):
        if labels["app.kubernetes.io/component"] in ("front-door", "gateway"):
            assert any(selected(budget, labels) for budget in budgets), where


def ray(made: Objects) -> dict[str, Any]:
    (service,) = of_kind(made, "RayService")
    return dict(service["spec"]["rayClusterConfig"])


def test_the_grace_is_longer_than_what_leaving_may_take(made: Objects) -> None:
    for where, _, spec in pod_specs(of_kind(made, "RayService")):
        hook = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert hook[:3] == ["python", "-m", "deployments.leaving"]
        assert spec["terminationGracePeriodSeconds"] > float(hook[-1]), where


def test_every_variable_comes_once(made: Objects) -> None:
    for where, container in containers(made):
        names = [each["name"] for each in container.get("env", ())]
        assert len(names) == len(set(names)), where


def test_names_are_short_enough_for_kubernetes(made: Objects) -> None:
    for each in made:
        assert len(each["metadata"]["name"]) <= 52  # of jobs and clusters pods get longer ones
    for group in ray(made)["workerGroupSpecs"]:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,25}[a-z0-9])?", group["groupName"])
