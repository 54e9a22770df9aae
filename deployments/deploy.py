"""Puts weir's application on a Ray Serve cluster: ``python -m deployments.deploy``.

A process of its own, because describing a model with ``ray.serve.llm`` imports vLLM (480 MB, 5 s)
which nothing that stays alive should pay for. It imports first and waits for the cluster's
address on stdin, so that the imports run while Ray starts.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.llm import LLMConfig
from ray.serve.schema import LoggingConfig

from deployments.adapters import engine_arguments
from deployments.autoscaling import POLICY, ZERO_POLICY, decided_by
from deployments.engine import FORKED_CORE, REGISTRY, YIELDING
from deployments.engine_tracing import engine_tracing
from deployments.gateway.deployment import GatewayReplica
from deployments.loopback import on_loopback
from deployments.names import APP, GATEWAY, POOL_LABEL, pool_label
from deployments.pools import Membership, Pool, pools_of, runs
from deployments.replica import ModelReplica
from deployments.sources import model_source
from deployments.stub import StubReplica
from deployments.versions import gateway_version, model_version
from weir.adapters import adapter_digests, inspect_adapters
from weir.settings import EngineSettings, ModelSettings, Settings, parse_settings, read_tree
from weir.settings.admin import AdminSettings
from weir.settings.autoscaling import AutoscalingSettings, ScalingSettings
from weir.settings.pools import PoolSettings
from weir.settings.slo import SloSettings
from weir.settings.speculative import SpeculativeSettings

_ROUTER = "router.ray_adapter.WeirRequestRouter"
_STATS_PERIOD_S = 2.0
# Serve's own limit must never be the one that bites: admission is weir's.
_UNLIMITED = 1_000_000
# Serve replaces a gateway when a check finds it dead; its default would be 10 s.
_GATEWAY_CHECK_PERIOD_S = 1.0
#: Serve believes the third answer: a replica whose machine is about to go is replaced after six
#: seconds.
_CHECKS: Final[Mapping[str, Any]] = {"health_check_period_s": 2.0, "health_check_timeout_s": 30.0}


def llm_config(pool: Pool, settings: Settings) -> LLMConfig:
    """A pool's replicas as ``ray.serve.llm`` describes them."""
    model, registry, tracing = pool.model, settings.registry.url, settings.tracing
    env = dict(model.engine.env)
    placement = None
    if model.accelerator is None:
        workers = model.parallel.workers
        placement = {"bundles": [{"CPU": model.num_cpus}] * workers, "strategy": "PACK"}
        if model.engine.mode == "forked":
            env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    spans = engine_tracing(tracing)
    env = {**spans.environment, **env}
    return LLMConfig(
        model_loading_config={
            "model_id": model.name,
            "model_source": model_source(model.source, registry),
        },
        engine_kwargs={**spans.arguments, **_engine_args(pool, registry)},
        accelerator_type=model.accelerator,
        placement_group_config=placement,
        runtime_env={"env_vars": env} if env else None,
        log_engine_metrics=False,
        experimental_configs={
            FORKED_CORE: model.engine.mode == "forked",
            YIELDING: model.engine.yielding,
            REGISTRY: registry,
        },
        deployment_config={
            "name": pool.deployment,
            **_replicas(pool, settings),
            "max_ongoing_requests": _UNLIMITED,
            "ray_actor_options": {"num_cpus": 0},
            "graceful_shutdown_timeout_s": model.drain_timeout_s + 10.0,
            "graceful_shutdown_wait_loop_s": 1.0,
            **_CHECKS,
            "request_router_config": _router(),
        },
    )


def _engine_args(pool: Pool, registry: str | None) -> dict[str, Any]:
    model = pool.model
    args = {**model.engine_args, **model.parallel.engine_args(), **_adapter_args(model, registry)}
    if (draft := model.speculative.draft) is not None:
        args["speculative_config"] = model.speculative.engine_argument(
            model_source(draft, registry)
        )
    if (transfer := pool.kv_transfer()) is not None:
        args["kv_transfer_config"] = transfer
    return args


def _adapter_args(model: ModelSettings, registry: str | None) -> dict[str, Any]:
    files = inspect_adapters(model, registry).values()
    return engine_arguments(list(files), model.adapter_slots)


def application(settings: Settings) -> Any:
    """weir as a Serve application: the gateway, with a handle to each deployment of a model."""
    pools = [pool for model in students_first(settings) for pool in pools_of(model)]
    handles = {pool.deployment: _pool(pool, settings) for pool in pools}
    deployment = serve.deployment(serve.ingress()(_placed(GatewayReplica, settings))).options(
        name=GATEWAY,
        num_replicas=settings.gateway.processes,
        max_ongoing_requests=_UNLIMITED,
        **_gateway_nodes(settings),
        graceful_shutdown_timeout_s=settings.server.drain_timeout_s + 10.0,
        graceful_shutdown_wait_loop_s=1.0,
        health_check_period_s=_GATEWAY_CHECK_PERIOD_S,
        logging_config=_quiet(),
    )
    view = gateway_view(settings)
    version = gateway_version(view, adapter_digests(settings))
    return _versioned(deployment, version).bind(view, handles)


def students_first(settings: Settings) -> list[ModelSettings]:
    """Serve places deployments in this order: where room is short, what answers for the others
    has its place before them."""
    students = {model.fallback.student for model in settings.models if model.fallback}
    return sorted(settings.models, key=lambda model: model.name not in students)


def _replicas(pool: Pool, settings: Settings) -> dict[str, Any]:
    model, scaling = pool.model, pool.model.autoscaling
    # When to wait is the policy's own business.
    at_once = {
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 0.0,
        "downscale_to_zero_delay_s": 0.0,
    }
    if not runs(model):
        # Serve takes a fixed number only above 0; a scaled deployment may have none.
        none = {"min_replicas": 0, "initial_replicas": 0, "max_replicas": 1}
        return {"autoscaling_config": none | at_once | {"policy": {"policy_function": ZERO_POLICY}}}
    if scaling is None:
        return {"num_replicas": model.replicas}
    return {
        "autoscaling_config": {
            "min_replicas": scaling.min_replicas,
            "max_replicas": scaling.max_replicas,
            "initial_replicas": scaling.begins_with(model.replicas),
            "policy": {"policy_function": POLICY, "policy_kwargs": decided_by(pool, settings)},
            **at_once,
        }
    }


def gateway_view(settings: Settings) -> Settings:
    """What the gateway needs to know: Serve restarts it when this changes, so scaling a model or
    tuning its engine must not show here. Of a pool that is its name; what it is for, its replicas
    say."""
    models = tuple(
        model.model_copy(
            update={
                # A model with a student may go to zero and back; its requests go on.
                "replicas": 1 if model.fallback else min(_all_replicas(model), 1),
                "engine": EngineSettings(),
                "num_cpus": 0,
                "autoscaling": _sleeping(model.autoscaling),
                "speculative": SpeculativeSettings(),
                "pools": tuple(
                    PoolSettings(name=pool.name, autoscaling=_sleeping(pool.autoscaling))
                    for pool in model.pools
                ),
            }
        )
        for model in settings.models
    )
    # Admin requests are forwarded, whoever may send them.
    server = settings.server.model_copy(update={"admin": AdminSettings()})
    holding = ScalingSettings(hold_s=settings.autoscaling.hold_s)
    # Objectives are for rules and alerts.
    own = {"models": models, "server": server, "autoscaling": holding, "slo": SloSettings()}
    return settings.model_copy(update=own)


def _sleeping(bounds: AutoscalingSettings | None) -> AutoscalingSettings | None:
    """Of the bounds, a gateway knows whether there are any, and whether there may be no replica."""
    return bounds and AutoscalingSettings(min_replicas=min(1, bounds.min_replicas))


def _all_replicas(model: ModelSettings) -> int:
    return sum(pool.model.replicas for pool in pools_of(model))


def _pool(pool: Pool, settings: Settings) -> Any:
    model = pool.model
    if model.engine.mode == "stub":
        stub = serve.deployment(_placed(StubReplica, settings)).options(
            name=pool.deployment,
            **_replicas(pool, settings),
            max_ongoing_requests=_UNLIMITED,
            ray_actor_options={"num_cpus": 0, **_nodes(pool, settings)},
            **_CHECKS,
            request_router_config=_router(),
            logging_config=_quiet(),
        )
        return _versioned(stub, model_version(pool, settings, [])).bind(
            model, settings.log, *_membership(pool)
        )
    config = llm_config(pool, settings)
    options = ModelReplica.get_deployment_options(config)
    if (nodes := _nodes(pool, settings)) and (bundles := options.get("placement_group_bundles")):
        selectors = [nodes["label_selector"]] * len(bundles)
        options["placement_group_bundle_label_selector"] = selectors
    replica = _placed(ModelReplica, settings)
    deployment = serve.deployment(replica).options(**options, logging_config=_quiet())
    sources = [model.source, *filter(None, [model.speculative.draft])]
    places = [model_source(source, settings.registry.url) for source in sources]
    arguments = _adapter_args(model, settings.registry.url)
    version = model_version(pool, settings, places, arguments)
    return _versioned(deployment, version).bind(
        config, model.drain_timeout_s, settings.log, *_membership(pool)
    )


def _membership(pool: Pool) -> list[Membership]:
    """A replica's last argument; none where the model has no pools."""
    return [Membership(pool.name, pool.role, pool.hands_off, pool.notices)] if pool.name else []


def _nodes(pool: Pool, settings: Settings) -> dict[str, Any]:
    """Where the pool may run: a cluster's nodes carry Ray's labels, the one machine of a local
    cluster has none."""
    labels = {}
    if pool.spot and settings.ray.address != "local":
        labels["ray.io/market-type"] = "spot"
    if _labelled(settings):
        labels[POOL_LABEL] = pool_label(pool.model.name, pool.name)
    return {"label_selector": labels} if labels else {}


def _gateway_nodes(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": settings.gateway.num_cpus}
    if not _labelled(settings):
        return {"ray_actor_options": options}
    options["label_selector"] = {POOL_LABEL: GATEWAY}
    return {"ray_actor_options": options, "max_replicas_per_node": 1}


def _labelled(settings: Settings) -> bool:
    return settings.ray.pool_labels and settings.ray.address != "local"


def _placed(replica: type, settings: Settings) -> type:
    return on_loopback(replica) if settings.ray.address == "local" else replica


def _versioned(deployment: Any, version: str) -> Any:
    # Serve took the option away and kept the field; tests/e2e/test_lifecycle.py sees whether a
    # replica survives a deploy that does not concern it.
    deployment._version = version
    return deployment


def _router() -> RequestRouterConfig:
    return RequestRouterConfig(
        request_router_class=_ROUTER, request_routing_stats_period_s=_STATS_PERIOD_S
    )


def _quiet() -> LoggingConfig:
    # weir logs requests itself; Serve's access log costs a formatted record per request.
    return LoggingConfig(enable_access_log=False)


def main(argv: list[str] | None = None) -> None:
    """Deploy everything in the settings, then exit; Serve goes on from there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True)
    arguments = parser.parse_args(argv)
    settings = parse_settings(read_tree(arguments.settings), str(arguments.settings))
    address = sys.stdin.readline().strip()
    if not address:
        sys.exit("no cluster address on stdin")
    ray.init(address=address, namespace="serve", logging_level=logging.WARNING)
    target = serve.RunTarget(application(settings), name=APP)
    serve.run_many([target], wait_for_applications_running=False)


if __name__ == "__main__":
    main()
