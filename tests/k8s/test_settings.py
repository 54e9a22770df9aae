"""What the settings of a values file become: weir's own checks, Ray's schema, worker groups."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.checking import checked
from deployments.names import POOL_LABEL, pool_label
from deployments.pools import pools_of
from k8s.rendering import VALUES, values_file
from tests.k8s.conftest import Objects, of_kind, pod_specs
from weir.settings import Settings


def service(made: Objects) -> dict[str, Any]:
    (found,) = of_kind(made, "RayService")
    return dict(found["spec"])


def served(made: Objects) -> dict[str, Any]:
    """The one application of Serve's configuration."""
    (application,) = yaml.safe_load(service(made)["serveConfigV2"])["applications"]
    return dict(application)


def settings_of(made: Objects) -> Settings:
    return checked(served(made)["args"]["settings"], "serveConfigV2", static=True)


def mounted(made: Objects) -> dict[str, Any]:
    """The settings that everything but Serve is given."""
    (config,) = [
        each for each in of_kind(made, "ConfigMap") if each["metadata"]["name"] == "weir-settings"
    ]
    return dict(yaml.safe_load(config["data"]["settings.yaml"]))


def test_weir_takes_them(made: Objects) -> None:
    settings = settings_of(made)
    assert settings.ray.address == "auto"
    assert settings.ray.pool_labels
    assert settings.redis.mode == "external"
    assert settings.gateway.metrics_port == 8001
    assert checked(mounted(made), "settings.yaml", static=True).models == settings.models


def test_nothing_of_the_values_is_lost(values: str, made: Objects) -> None:
    given = yaml.safe_load(values_file(values).read_text("utf-8"))["settings"]
    assert mounted(made)["models"] == given["models"]
    assert served(made)["args"]["settings"]["models"] == given["models"]


def test_tenants_are_not_what_the_application_is_made_from(helm: Path) -> None:
    from k8s.rendering import objects, rendered

    tenant = ("--set", "settings.tenants[0].id=shop")
    made, without = objects(rendered(helm, "laptop", *tenant)), objects(rendered(helm, "laptop"))
    assert mounted(made)["tenants"] == [{"id": "shop"}]
    assert served(made) == served(without)
    names = [
        [each["metadata"]["name"] for each in of_kind(which, "Job")] for which in (made, without)
    ]
    assert names[0] != names[1], "the Job that puts them into the database has to run again"


def groups(made: Objects) -> dict[str, dict[str, Any]]:
    """Worker groups of pools, by their label."""
    return {
        group["labels"][POOL_LABEL]: group
        for group in service(made)["rayClusterConfig"]["workerGroupSpecs"]
        if group["labels"][POOL_LABEL] != "gateway"
    }


def test_each_pool_has_a_worker_group_that_can_hold_it(made: Objects) -> None:
    found = groups(made)
    pools = [pool for model in settings_of(made).models for pool in pools_of(model)]
    assert found.keys() == {pool_label(pool.model.name, pool.name) for pool in pools}
    for pool in pools:
        group = found[pool_label(pool.model.name, pool.name)]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        gpus = limits.get("nvidia.com/gpu", 0)
        wanted = pool.model.parallel.workers if pool.model.accelerator else 0
        scaling = pool.model.autoscaling
        least = scaling.min_replicas if scaling else pool.model.replicas
        most = scaling.max_replicas if scaling else pool.model.replicas
        assert gpus == wanted
        assert (group["minReplicas"], group["maxReplicas"]) == (least, most)
        assert least <= group["replicas"] <= max(most, 1)
        market = group["labels"]["ray.io/market-type"]
        assert market == ("spot" if pool.spot else "on-demand")


def test_gateways_are_as_many_as_the_settings_say(made: Objects) -> None:
    config = service(made)["rayClusterConfig"]
    gateways = [g for g in config["workerGroupSpecs"] if g["labels"][POOL_LABEL] == "gateway"]
    assert sum(group["replicas"] for group in gateways) == settings_of(made).gateway.processes


def test_what_runs_on_what(objects_of: Callable[[str], Objects]) -> None:
    found = groups(objects_of("production"))
    spot = found["llama-3.3-70b.spot"]["template"]["spec"]
    decode = found["llama-3.3-70b.decode"]["template"]["spec"]
    student = found["student-8b"]["template"]["spec"]
    assert spot["nodeSelector"] == {
        "example.com/accelerator": "h100",
        "example.com/capacity": "spot",
    }
    assert {each["key"] for each in spot["tolerations"]} == {"nvidia.com/gpu", "example.com/spot"}
    assert {each["key"] for each in decode["tolerations"]} == {"nvidia.com/gpu"}
    assert spot["priorityClassName"] == "spot-serving"
    assert decode["priorityClassName"] == "serving"
    assert student["nodeSelector"]["example.com/accelerator"] == "l4"
    assert student["containers"][0]["resources"]["limits"]["memory"] == "32Gi"


def test_a_replica_over_several_pods(helm: Path) -> None:
    from k8s.rendering import objects, rendered

    made = objects(rendered(helm, "production", "--set", "workers.defaults.gpusPerPod=3"))
    group = groups(made)["llama-3.3-70b.decode"]
    assert group["replicas"] == 4 * 2  # four accelerators, three in a pod
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 3


def test_without_rays_autoscaler_there_is_room_for_all_that_may_be(helm: Path) -> None:
    from k8s.rendering import objects, rendered

    made = objects(rendered(helm, "production", "--set", "ray.autoscaling.enabled=false"))
    assert groups(made)["llama-3.3-70b.spot"]["replicas"] == 6


def test_pods_wait_for_what_they_need(made: Objects, values: str) -> None:
    for where, labels, spec in pod_specs(of_kind(made, "RayService")):
        waits = [each["name"] for each in spec.get("initContainers", ())]
        files = ["wait-for-models"] if values != "laptop" else []
        database = ["wait-for-database"] if labels[POOL_LABEL] == "gateway" else []
        assert waits == [*database, *files], where


def test_who_waits_for_files_names_the_mark_that_the_job_leaves(
    objects_of: Callable[[str], Objects],
) -> None:
    made = objects_of("production")
    (job,) = [each for each in of_kind(made, "Job") if "-models-" in each["metadata"]["name"]]
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    mark = command[command.index("--done") + 1]
    for _, _, spec in pod_specs(of_kind(made, "RayService")):
        wait = next(e for e in spec["initContainers"] if e["name"] == "wait-for-models")
        assert wait["command"][wait["command"].index("--done") + 1] == mark
    assert "s3://weir-models/llama-3.3-70b=llama-3.3-70b" in command


def test_an_external_redis_is_used_with_its_certificate(
    objects_of: Callable[[str], Objects],
) -> None:
    made = objects_of("production")
    assert not of_kind(made, "StatefulSet")
    options = service(made)["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert options["redisAddress"] == "rediss://redis.example.internal:6380"
    for where, labels, spec in pod_specs(made):
        if labels["app.kubernetes.io/component"] in ("gateway", "control", "head"):
            variables = {each["name"]: each.get("value") for each in spec["containers"][0]["env"]}
            assert variables["WEIR_REDIS_URL"] == (
                "rediss://weir:$(WEIR_REDIS_PASSWORD)@redis.example.internal:6380/0"
                "?ssl_ca_certs=/etc/weir/redis/ca.crt"
            ), where
            mounts = {each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
            assert "/etc/weir/redis" in mounts


def test_regions_have_front_doors_of_their_own(objects_of: Callable[[str], Objects]) -> None:
    made = objects_of("regions")
    services = {each["metadata"]["name"]: each["spec"] for each in of_kind(made, "Service")}
    for region in ("eu", "us"):
        gateways = services[f"weir-front-{region}-gateways"]
        assert gateways["clusterIP"] == "None"
        assert gateways["selector"]["weir/gateways"] == region
        (front,) = [
            each
            for each in of_kind(made, "Deployment")
            if each["metadata"]["name"] == f"weir-front-{region}"
        ]
        pod = front["spec"]["template"]["spec"]
        assert pod["nodeSelector"]["topology.kubernetes.io/region"].startswith(region)
        assert f"--gateways=weir-front-{region}-gateways" in pod["containers"][0]["command"]
    assert "weir-front" not in services


def test_every_gateway_is_a_target_of_prometheus(objects_of: Callable[[str], Objects]) -> None:
    """Each tells of its own part; all parts are the whole, and nothing is counted twice."""
    made = objects_of("production")
    monitors = {each["metadata"]["name"]: each["spec"] for each in of_kind(made, "PodMonitor")}
    monitor = monitors["weir-gateways"]
    labels = monitor["selector"]["matchLabels"]
    assert labels["app.kubernetes.io/component"] == "gateway"
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("weir-metrics", "/metrics/part")


def test_rules_and_dashboards_come_with_it(helm: Path, tmp_path: Path) -> None:
    """Whatever lies in k8s/rules and k8s/dashboards."""
    import shutil

    from k8s import rendering

    chart = tmp_path / "chart"
    shutil.copytree(rendering.CHART, chart)
    for folder in ("rules", "dashboards"):
        shutil.rmtree(chart / folder)
        (chart / folder).mkdir()
    (chart / "rules" / "slo.rules.yaml").write_text(
        "groups:\n  - name: slo\n    rules:\n      - {record: a, expr: 'up{job=\"x\"}'}\n"
    )
    (chart / "dashboards" / "over_view.json").write_text('{"title": "{{ not helm }}"}')
    command = [str(helm), "template", "weir", str(chart), "--kube-version", "1.33.0"]
    command += ["--values", str(values_file("gpu"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    made = rendering.objects(done.stdout)
    (rule,) = of_kind(made, "PrometheusRule")
    assert rule["spec"]["groups"][0]["rules"][0]["expr"] == 'up{job="x"}'
    (dashboard,) = [
        each
        for each in of_kind(made, "ConfigMap")
        if each["metadata"]["name"] == "weir-dashboard-over-view"
    ]
    assert json.loads(dashboard["data"]["over_view.json"]) == {"title": "{{ not helm }}"}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


# Ray's imports warn in ways that are not ours to fix.
_PARSE = """
import json, sys
from ray.serve.schema import ServeDeploySchema
for config in json.load(sys.stdin):
    parsed = ServeDeploySchema.parse_obj(config)
    print("RESULT", parsed.applications[0].import_path, parsed.http_options.port)
"""


@pytest.mark.engine
def test_ray_takes_serves_configuration(
    objects_of: Callable[[str], Objects], package_env: dict[str, str]
) -> None:
    configs = [yaml.safe_load(service(objects_of(name))["serveConfigV2"]) for name in VALUES]
    done = subprocess.run(
        [sys.executable, "-c", _PARSE],
        env=package_env,
        input=json.dumps(configs),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert lines == ["RESULT deployments.serving:build 8500"] * len(VALUES), done.stderr[-2000:]
