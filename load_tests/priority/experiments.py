"""Three experiments on the real admission queue: classes, tenants with a backlog, a flood."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from load_tests.peers.simple import LeastRequests
from load_tests.priority.streams import (
    BLOCK_SIZE,
    CHAT,
    CODE,
    DOCUMENTS,
    Lengths,
    Stream,
    make_trace,
)
from load_tests.report import percentile
from load_tests.sim.engine import EngineConfig
from load_tests.sim.request import SimRequest
from load_tests.sim.system import System
from load_tests.sim.timing import StepTiming
from load_tests.sim.weir_system import WeirProfile, WeirSystem
from load_tests.sim.world import FleetConfig, World
from load_tests.traces import Trace
from router.admission import AdmissionSettings
from router.shipped import shipped_profile

KV_TOKENS = 1 << 19
INTERACTIVE_SHARE = 0.2
OVERLOAD = 2.0
TENANTS = 10


@dataclass(frozen=True, slots=True)
class Setup:
    """Fleet, settings and length of the experiments (simulated seconds)."""

    replicas: int
    timing: StepTiming
    batched_tokens: int
    seconds: float
    warm_s: float
    seed: int
    admission: AdmissionSettings = field(default_factory=lambda: shipped_profile().admission)
    yields: bool = True

    @property
    def fleet(self) -> FleetConfig:
        """Equal engines with vLLM's priority scheduler on, and weir's on top unless asked not."""
        engine = EngineConfig(
            KV_TOKENS // BLOCK_SIZE,
            BLOCK_SIZE,
            self.batched_tokens,
            256,
            priority_scheduling=True,
            yields=self.yields,
        )
        return FleetConfig(self.replicas, engine, self.timing)

    def weir(self) -> WeirSystem:
        """weir with admission on."""
        return WeirSystem(WeirProfile(replace(shipped_profile(), admission=self.admission)))


def run(system: System, trace: Trace, setup: Setup) -> World:
    """Replay an open-loop trace as it is."""
    world = World(system, setup.fleet, setup.seed)
    world.run_open(trace)
    return world


def tokens(request: SimRequest) -> int:
    """Prompt and output."""
    return request.trace.prompt_tokens + request.trace.output_tokens


def flood_rate(requests: Sequence[SimRequest], setup: Setup) -> float:
    """Tokens per second when exactly these requests are there at once, without classes."""
    together = tuple(
        replace(request.trace, arrival_s=0.0, priority_class="standard") for request in requests
    )
    world = run(LeastRequests(), Trace("flood", "synthetic", BLOCK_SIZE, together), setup)
    return _rate(world.requests)


def _rate(requests: Iterable[SimRequest]) -> float:
    """Tokens of the requests that ended between the 10th and the 90th percentile, per second."""
    done = sorted((r.finish_s, tokens(r)) for r in requests if r.finish_s is not None)
    low, high = len(done) // 10, len(done) * 9 // 10
    span = done[high][0] - done[low][0]
    return sum(count for _, count in done[low:high]) / max(1e-9, span)


def capacity_req_per_s(lengths: Lengths, setup: Setup) -> float:
    """How many requests of this kind the fleet does per second, flooded."""
    count = 300 * setup.replicas
    stream = Stream("probe", "standard", lengths, count / 100.0, 100.0)
    world = run(LeastRequests(), make_trace([stream], setup.seed), setup)
    per_request = sum(tokens(r) for r in world.requests) / len(world.requests)
    return flood_rate(world.requests, setup) / per_request


def ttft_ms(world: World, setup: Setup, tenant: str | None, percent: float) -> float | None:
    """Of the requests that arrived while it was measured."""
    values = [
        request.ttft_s * 1e3
        for request in world.requests
        if setup.warm_s <= request.arrival_s < setup.seconds and request.ttft_s is not None
        if tenant is None or request.trace.tenant == tenant
    ]
    return percentile(values, percent)


@dataclass(frozen=True, slots=True)
class ClassesResult:
    """Interactive requests alone, and under overload by batch with and without admission."""

    alone_p99_ms: float
    loaded_p50_ms: float
    loaded_p99_ms: float
    open_p99_ms: float
    tokens_per_s: float
    capacity_tokens_per_s: float
    offered_over_capacity: float

    @property
    def p99_ratio(self) -> float:
        """Under overload over alone."""
        return self.loaded_p99_ms / self.alone_p99_ms

    @property
    def throughput_share(self) -> float:
        """Of what the same requests take without classes."""
        return self.tokens_per_s / self.capacity_tokens_per_s


def classes(setup: Setup) -> ClassesResult:
    """Interactive chat at a fifth of the capacity, batch code filling up to twice of it."""
    chat = INTERACTIVE_SHARE * capacity_req_per_s(CHAT, setup)
    code = (OVERLOAD - INTERACTIVE_SHARE) * capacity_req_per_s(CODE, setup)
    interactive = Stream("chat", "interactive", CHAT, chat, setup.seconds)
    batch = Stream("code", "batch", CODE, code, setup.seconds)
    alone = run(setup.weir(), make_trace([interactive], setup.seed), setup)
    both = make_trace([interactive, batch], setup.seed)
    loaded = run(setup.weir(), both, setup)
    unordered = run(LeastRequests(), both, setup)
    inside = [
        request
        for request in loaded.requests
        if request.finish_s is not None and setup.warm_s <= request.finish_s < setup.seconds
    ]
    rate = sum(tokens(request) for request in inside) / (setup.seconds - setup.warm_s)
    return ClassesResult(
        alone_p99_ms=ttft_ms(alone, setup, "chat", 99) or 0.0,
        loaded_p50_ms=ttft_ms(loaded, setup, "chat", 50) or 0.0,
        loaded_p99_ms=ttft_ms(loaded, setup, "chat", 99) or 0.0,
        open_p99_ms=ttft_ms(unordered, setup, "chat", 99) or 0.0,
        tokens_per_s=rate,
        capacity_tokens_per_s=flood_rate(inside, setup),
        offered_over_capacity=OVERLOAD,
    )


@dataclass(frozen=True, slots=True)
class DocumentsResult:
    """Interactive TTFT p99 alone, and beside batch prompts of 8k to 100k tokens: with engines that
    yield and with vLLM's own scheduler; and what share of those tokens the latter does."""

    alone_p99_ms: float
    yielding_p99_ms: float
    stock_p99_ms: float
    throughput_over_stock: float


def documents(setup: Setup) -> DocumentsResult:
    """Interactive chat at a fifth of the capacity beside long documents at twice of it."""
    stock = replace(setup, yields=False)
    chat = INTERACTIVE_SHARE * capacity_req_per_s(CHAT, setup)
    long = OVERLOAD * capacity_req_per_s(DOCUMENTS, setup)
    interactive = Stream("chat", "interactive", CHAT, chat, setup.seconds)
    batch = Stream("documents", "batch", DOCUMENTS, long, setup.seconds)
    both = make_trace([interactive, batch], setup.seed)
    alone = run(setup.weir(), make_trace([interactive], setup.seed), setup)
    ours, theirs = run(setup.weir(), both, setup), run(stock.weir(), both, stock)
    return DocumentsResult(
        alone_p99_ms=ttft_ms(alone, setup, "chat", 99) or 0.0,
        yielding_p99_ms=ttft_ms(ours, setup, "chat", 99) or 0.0,
        stock_p99_ms=ttft_ms(theirs, setup, "chat", 99) or 0.0,
        throughput_over_stock=_tokens_per_s(ours, setup) / max(1.0, _tokens_per_s(theirs, setup)),
    )


def _tokens_per_s(world: World, setup: Setup) -> float:
    inside = (r for r in world.requests if r.finish_s and setup.warm_s <= r.finish_s)
    done = sum(tokens(r) for r in inside if (r.finish_s or 0.0) < setup.seconds)
    return done / (setup.seconds - setup.warm_s)


@dataclass(frozen=True, slots=True)
class FairnessResult:
    """Service is weighted tokens (input 1, output 2) of requests that ended while all tenants
    had requests waiting."""

    jain: float
    spread: float
    bound: float
    service: Mapping[str, float]


def fairness(setup: Setup) -> FairnessResult:
    """Ten tenants of one class, all with a backlog, with short and long requests and rates that
    differ fivefold."""
    streams = []
    for number in range(TENANTS):
        lengths = CHAT if number % 2 else CODE
        rate = capacity_req_per_s(lengths, setup) * OVERLOAD / TENANTS
        faster = 1 + number % 5
        streams.append(Stream(f"t{number}", "standard", lengths, rate * faster, setup.seconds))
    world = run(setup.weir(), make_trace(streams, setup.seed), setup)
    weights = setup.admission
    service: dict[str, float] = defaultdict(float)
    for request in world.requests:
        if request.finish_s is not None and setup.warm_s <= request.finish_s < setup.seconds:
            trace = request.trace
            service[trace.tenant] += (
                weights.input_weight * trace.prompt_tokens
                + weights.output_weight * trace.output_tokens
            )
    values = [service[stream.tenant] for stream in streams]
    return FairnessResult(
        jain=jain_index(values),
        spread=max(values) - min(values),
        bound=service_bound(world, setup),
        service=dict(service),
    )


def jain_index(values: Sequence[float]) -> float:
    """(Σx)² / (n Σx²): 1 when all are equal, 1/n when one has everything (Jain 1984)."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def service_bound(world: World, setup: Setup) -> float:
    """VTC's bound on the difference of two backlogged tenants' service (Sheng et al., OSDI 2024,
    theorem 4.4): 2 max(w_p L_input, w_q M), M the tokens in flight at once."""
    weights = setup.admission
    longest = max(request.trace.prompt_tokens for request in world.requests)
    in_flight = setup.replicas * KV_TOKENS
    return 2 * max(weights.input_weight * longest, weights.output_weight * in_flight)


@dataclass(frozen=True, slots=True)
class FloodResult:
    """What a flooding tenant does to the others' TTFT p99: the worst of their ratios."""

    calm_p99_ms: float
    flood_p99_ms: float
    worst_ratio: float
    flooder_p99_ms: float
    open_worst_ratio: float


def flood(setup: Setup) -> FloodResult:
    """Nine chat tenants at 8 % of the capacity each; a tenth joins in at 8 %, or at 128 %."""
    rate = 0.08 * capacity_req_per_s(CHAT, setup)
    others = [Stream(f"t{number}", "interactive", CHAT, rate, setup.seconds) for number in range(9)]
    same = Stream("flooder", "interactive", CHAT, rate, setup.seconds)
    many = replace(same, rate_per_s=16 * rate)
    calm = run(setup.weir(), make_trace([*others, same], setup.seed), setup)
    loud = run(setup.weir(), make_trace([*others, many], setup.seed), setup)
    open_calm = run(LeastRequests(), make_trace([*others, same], setup.seed), setup)
    open_loud = run(LeastRequests(), make_trace([*others, many], setup.seed), setup)
    names = [stream.tenant for stream in others]
    return FloodResult(
        calm_p99_ms=_median_p99(calm, setup, names),
        flood_p99_ms=_median_p99(loud, setup, names),
        worst_ratio=_worst(calm, loud, setup, names),
        flooder_p99_ms=ttft_ms(loud, setup, "flooder", 99) or 0.0,
        open_worst_ratio=_worst(open_calm, open_loud, setup, names),
    )


def _median_p99(world: World, setup: Setup, names: Sequence[str]) -> float:
    values = sorted(ttft_ms(world, setup, name, 99) or 0.0 for name in names)
    return values[len(values) // 2]


def _worst(calm: World, loud: World, setup: Setup, names: Sequence[str]) -> float:
    return max(
        (ttft_ms(loud, setup, name, 99) or 0.0) / (ttft_ms(calm, setup, name, 99) or 1.0)
        for name in names
    )
