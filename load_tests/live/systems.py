"""What is compared live: two real vLLM replicas each time, and a different router before them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from load_tests.loadgen import Target
from load_tests.servers import EngineWorkload, Launch
from load_tests.servers.gateways import peers_python, sglang_before
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
    launch, target = sglang_before(peers, addresses, policy)
    return [*below, launch], target
