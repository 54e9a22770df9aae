"""Every system that the simulator can run, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from load_tests.peers.aibrix import AibrixPrefixCache
from load_tests.peers.dynamo import DynamoKvRouter
from load_tests.peers.llm_d import LlmD, LlmDPrecise
from load_tests.peers.oracle import Oracle, OracleRule
from load_tests.peers.ray_prefix import RayPrefixAffinity
from load_tests.peers.sglang import SglangCacheAware
from load_tests.peers.simple import LeastRequests, PowerOfTwo, RoundRobin
from load_tests.sim.figures import Slo
from load_tests.sim.system import System
from load_tests.sim.weir_system import WeirSystem, routing_profile

Factory = Callable[[Slo], System]

ORACLE = "oracle"
WEIR = "weir"
_WASTES = (0.0, 3.0, 30.0)


@dataclass(frozen=True, slots=True)
class Entry:
    """``factories``: one, or a family of which the best counts."""

    name: str
    kind: str
    factories: tuple[Factory, ...]


def _plain(kind: Callable[[], System]) -> tuple[Factory, ...]:
    return (lambda slo: kind(),)


def _oracles() -> tuple[Factory, ...]:
    def make(rule: OracleRule) -> Factory:
        return lambda slo: Oracle(OracleRule(rule.waste, rule.backlog_steps, slo.ttft_s))

    rules = [OracleRule(waste) for waste in _WASTES]
    rules += [OracleRule(waste, 2.0) for waste in (3.0,)]
    return tuple(make(rule) for rule in rules)


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(WEIR, "weir", (lambda slo: WeirSystem(routing_profile(slo)),)),
        Entry("ray prefix-affinity", "peer", _plain(RayPrefixAffinity)),
        Entry("sglang cache_aware", "peer", _plain(SglangCacheAware)),
        Entry("dynamo kv_router", "peer", _plain(DynamoKvRouter)),
        Entry("llm-d", "peer", _plain(LlmD)),
        Entry("llm-d precise", "peer", _plain(LlmDPrecise)),
        Entry("aibrix prefix-cache", "peer", _plain(AibrixPrefixCache)),
        Entry("power-of-two", "peer", _plain(PowerOfTwo)),
        Entry("least-requests", "peer", _plain(LeastRequests)),
        Entry("round-robin", "peer", _plain(RoundRobin)),
        Entry(ORACLE, "bound", _oracles()),
    )
}


def peers() -> tuple[str, ...]:
    """The names of the opponents."""
    return tuple(entry.name for entry in ENTRIES.values() if entry.kind == "peer")
