"""The systems that are compared, and how each is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from load_tests.dataplane.measure import FULL, KINDS, PLAIN, SPOKEN, Phase
from load_tests.loadgen import Target
from load_tests.servers import EngineWorkload, Launch
from load_tests.servers.gateways import litellm, nothing, relay, sglang_router
from load_tests.servers.serve_llm import serve_llm
from load_tests.servers.vllm_server import vllm_server
from load_tests.servers.weir_platform import weir_gateway, weir_platform

Started = tuple[list[Launch], Target]
#: Of vLLM's own server.
MORE = (*PLAIN, *KINDS)
#: Of weir: the other dialects right behind the chat that they are compared with.
SPEAKING = (FULL, *SPOKEN, *PLAIN[1:])
CHUNK_INTERVAL_MS = 5.0


@dataclass(frozen=True, slots=True)
class System:
    """``key`` is its name on the command line. ``launch`` gets a folder that lives as long as the
    server; it raises Unavailable where the system cannot be had. ``phases``: the loads that it
    gets."""

    key: str
    title: str
    kind: Literal["engine", "gateway"]
    launch: Callable[[Path], Started]
    phases: tuple[Phase, ...] = PLAIN


def all_systems(workload: EngineWorkload, peers: Path | None) -> tuple[System, ...]:
    """In the order of the tables."""
    gap_ms = CHUNK_INTERVAL_MS
    return (
        System(
            "a1", "vLLM server, default", "engine", lambda _: vllm_server(workload, False), MORE
        ),
        System(
            "a2",
            "vLLM server, multiprocessing off",
            "engine",
            lambda _: vllm_server(workload, True),
            MORE,
        ),
        System(
            "b",
            "weir, everything on",
            "engine",
            lambda at: weir_platform(workload, 1, at),
            (*SPEAKING, *KINDS),
        ),
        System("c", "Ray Serve LLM, default", "engine", lambda at: serve_llm(workload, at)),
        System("none", "nothing", "gateway", lambda _: nothing(gap_ms)),
        System("relay", "plain ASGI relay", "gateway", lambda _: relay(gap_ms)),
        System(
            "weir",
            "weir gateway",
            "gateway",
            lambda at: weir_gateway(workload, gap_ms, at),
            SPEAKING,
        ),
        System("sglang", "SGLang router", "gateway", lambda _: sglang_router(gap_ms, peers)),
        System("litellm", "LiteLLM proxy", "gateway", lambda at: litellm(gap_ms, peers, at)),
    )
