"""What is compared live: two real vLLM replicas each time, and a different router before them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from load_tests.loadgen import Target
from load_tests.servers import EngineWorkload, Launch, free_port, http_ready
from load_tests.servers.gateways import peers_python
from load_tests.servers.serve_llm import serve_llm
from load_tests.servers.vllm_server import vllm_server
from load_tests.servers.weir_platform import weir_platform

Started = tuple[list[Launch], Target]
REPLICAS = 2
_RAY_PREFIX = "ray.serve.llm.request_router.PrefixCacheAffinityRouter"


@dataclass(frozen=True, slots=True)
class System:
    """``key`` is its name on the command line; ``launch`` gets a folder for its state."""

    key: str
    title: str
    launch: Callable[[Path], Started]


def all_systems(workload: EngineWorkload, peers: Path | None) -> tuple[System, ...]:
    """In the order of the table."""

    def weir(policy: str) -> Callable[[Path], Started]:
        return lambda at: weir_platform(workload, REPLICAS, at, routing={"policy": policy})

    def sglang(policy: str) -> Callable[[Path], Started]:
        return lambda _: _sglang(workload, policy, peers)

    return (
        System("weir", "weir, policy weir", weir("weir")),
        System("weir-rr", "weir, round-robin", weir("round-robin")),
        System("weir-lot", "weir, least-outstanding-tokens", weir("least-outstanding-tokens")),
        System("sglang", "SGLang router, cache_aware", sglang("cache_aware")),
        System("sglang-rr", "SGLang router, round_robin", sglang("round_robin")),
        System(
            "ray-prefix",
            "Ray Serve LLM, PrefixCacheAffinityRouter",
            lambda at: serve_llm(workload, at, REPLICAS, _RAY_PREFIX),
        ),
    )


def _replicas(workload: EngineWorkload) -> tuple[list[Launch], list[str]]:
    """vLLM's own servers, one process tree each, and their addresses."""
    args = {**workload.args, "enable_prompt_tokens_details": True}
    launches, addresses = [], []
    for number in range(REPLICAS):
        (launch,), target = vllm_server(replace(workload, args=args), in_process=True)
        launches.append(replace(launch, name=f"vllm-{number}"))
        addresses.append(f"http://{target.host}:{target.port}")
    return launches, addresses


def _sglang(workload: EngineWorkload, policy: str, python: Path | None) -> Started:
    peers = peers_python(python, "sglang_router")
    below, addresses = _replicas(workload)
    port = free_port()
    command = [str(peers), "-m", "sglang_router.launch_router", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--worker-urls", *addresses, "--policy", policy]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    launch = Launch("sglang-router", command, http_ready(port, "/readiness"))
    return [*below, launch], Target("127.0.0.1", port)


def chosen(systems: tuple[System, ...], only: str | None) -> tuple[System, ...]:
    """Those that ``only`` names (comma-separated keys).

    Raises:
        ValueError: it names one that does not exist.
    """
    if only is None:
        return systems
    keys = [key.strip() for key in only.split(",") if key.strip()]
    known = [system.key for system in systems]
    if unknown := [key for key in keys if key not in known]:
        raise ValueError(f"no system {unknown[0]!r}; known: {', '.join(known)}")
    return tuple(system for system in systems if system.key in keys)
