"""Ray Serve LLM's own path: ``build_openai_app``, nothing tuned.

``python -m load_tests.servers.serve_llm '{...}'`` runs it until SIGTERM.
"""

from __future__ import annotations

import json
import secrets
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from load_tests.loadgen import Target
from load_tests.servers.process import Launch, free_port
from load_tests.servers.workload import EngineWorkload


def serve_llm(
    workload: EngineWorkload, folder: Path, replicas: int = 1, router: str | None = None
) -> tuple[list[Launch], Target]:
    """``replicas`` of the model, the ingress replicas that Ray Serve LLM chooses, its Python proxy.
    ``router``: the class that chooses the replica, Serve's own unless given.

    Its ingress answers long before its model does, so a note in ``folder`` says when it is up.
    """
    port = free_port()
    note = folder / "running"
    config = {
        "note": str(note),
        "port": port,
        "model": str(workload.model),
        "served_name": workload.served_name,
        "args": dict(workload.args),
        "env": dict(workload.env),
        "replicas": replicas,
        "router": router,
    }
    command = [sys.executable, "-m", "load_tests.servers.serve_llm", json.dumps(config)]
    # A token of this cluster's own, so that none is written into the home directory.
    env = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_raylet_start_wait_time_s": "120",  # a busy machine needs more than 30 s
    }
    launch = Launch("serve-llm", command, note.exists, env, stop_timeout_s=30)
    return [launch], Target("127.0.0.1", port)


def run(config: dict[str, Any]) -> None:
    """Start Ray, Serve and the application; stay until told to go."""
    import ray
    from ray import serve
    from ray.serve.llm import LLMConfig, build_openai_app

    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    # Logical CPUs only say how many actors fit; the processes share the real cores. Ray takes
    # 127.0.0.1 for "find my address out" and would listen on the network, 127.0.0.2 it leaves.
    ray.init(address="local", num_cpus=16, include_dashboard=False, _node_ip_address="127.0.0.2")
    serve.start(http_options={"host": "127.0.0.1", "port": config["port"]})
    model = LLMConfig(
        model_loading_config={
            "model_id": config["served_name"],
            "model_source": config["model"],
        },
        engine_kwargs=config["args"],
        deployment_config=_deployment(config["replicas"], config["router"]),
        placement_group_config={"bundles": [{"CPU": 1}]},
        runtime_env={"env_vars": config["env"]},
    )
    serve.run(build_openai_app({"llm_configs": [model]}), blocking=False)
    Path(config["note"]).touch()
    over.wait()
    serve.shutdown()
    ray.shutdown()


def _deployment(replicas: int, router: str | None) -> dict[str, Any]:
    scaling = {"min_replicas": replicas, "max_replicas": replicas}
    deployment: dict[str, Any] = {"autoscaling_config": scaling}
    if router is not None:
        deployment["request_router_config"] = {"request_router_class": router}
    return deployment


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
