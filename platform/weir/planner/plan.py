"""The planner: every way to serve the traffic within its SLOs, the cheapest first.

For each accelerator and layout: do the weights fit, how much KV room is left, which rate one
replica serves within the limits (:func:`weir.planner.serving.best_rate`), how many replicas that
makes and what they cost. Then the same with prompts and answers in pools of their own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from weir.cards import Card
from weir.planner.accelerators import Accelerator
from weir.planner.roofline import Efficiencies, Layout, Roofline
from weir.planner.serving import Engine, Lengths, Slo, State, balance, best_rate
from weir.planner.split import Split, best_split
from weir.planner.traffic import Traffic

_MILLION = 1e6
#: Activations, CUDA graphs and the runtime's own, on each device.
OVERHEAD_BYTES = 3e9


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be served, and within which limits. ``memory_share``: of a device's memory, for
    the engine (vLLM's ``gpu_memory_utilization``). ``headroom``: so much more than the peak rate is
    planned for, as a share of it."""

    card: Card
    hidden: int
    heads: int
    kv_heads: int
    traffic: Traffic
    slo: Slo
    accelerators: Sequence[Accelerator]
    memory_share: float = 0.9
    most_streams: int = 1024
    batched_tokens: int = 8192
    headroom: float = 0.1
    efficiencies: Efficiencies = field(default_factory=Efficiencies)

    @property
    def lengths(self) -> Lengths:
        """Of the traffic's mean request."""
        traffic = self.traffic
        cached = traffic.prompt * traffic.cached_share
        return Lengths(traffic.prompt, traffic.output, cached, traffic.variation)

    @property
    def rate_per_s(self) -> float:
        """What is planned for."""
        return self.traffic.peak_per_s * (1 + self.headroom)


@dataclass(frozen=True, slots=True)
class Option:
    """One way to serve the traffic, or why it is none (``refusal``). ``state``: of one replica at
    the highest rate within the limits; ``at_peak``: at its share of the planned rate."""

    accelerator: Accelerator
    layout: Layout
    kv_bytes: float
    kv_tokens: int
    streams: int
    refusal: str = ""
    state: State | None = None
    at_peak: State | None = None
    replicas: int = 0
    split: Split | None = None
    usd_per_hour: float = math.inf

    @property
    def devices(self) -> int:
        """All accelerators."""
        if self.split is not None:
            return (self.split.prefills + self.split.decodes) * self.layout.devices
        return self.replicas * self.layout.devices

    @property
    def name(self) -> str:
        """Such as ``2 × H100, TP 2`` or ``1 prefill + 2 decode × H100``."""
        layout = f", {self.layout.name}" if self.layout.devices > 1 else ""
        if self.split is not None:
            return (
                f"{self.split.prefills} prefill + {self.split.decodes} decode × "
                f"{self.accelerator.name}{layout}"
            )
        return f"{self.replicas} × {self.accelerator.name}{layout}"


@dataclass(frozen=True, slots=True)
class Plan:
    """``options``: those that serve the traffic, the cheapest first; ``refused``: the others."""

    question: Question
    options: tuple[Option, ...]
    refused: tuple[Option, ...]

    @property
    def best(self) -> Option | None:
        """The cheapest; of two as cheap, the one with fewer devices."""
        return self.options[0] if self.options else None

    def usd_per_million_tokens(self, option: Option) -> float:
        """Prompt and output tokens together, at the traffic's mean rate."""
        traffic = self.question.traffic
        per_hour = traffic.mean_per_s * (traffic.prompt + traffic.output) * 3600
        return option.usd_per_hour / per_hour * _MILLION

    def api_usd_per_hour(self, usd_in: float, usd_out: float) -> float:
        """What an API at those prices per million tokens takes for the mean traffic."""
        traffic = self.question.traffic
        each = (traffic.prompt * usd_in + traffic.output * usd_out) / _MILLION
        return traffic.mean_per_s * each * 3600

    def break_even_per_s(self, option: Option, usd_in: float, usd_out: float) -> float:
        """From how many requests per second on the mean the option is cheaper than the API, if it
        stays as large as it is."""
        traffic = self.question.traffic
        each = (traffic.prompt * usd_in + traffic.output * usd_out) / _MILLION
        return option.usd_per_hour / 3600 / each if each else math.inf


def make_plan(question: Question) -> Plan:
    """All options, sorted."""
    options = [
        option
        for accelerator in question.accelerators
        for layout in _layouts(question, accelerator)
        for option in _options(question, accelerator, layout)
    ]
    good = sorted(
        (option for option in options if not option.refusal),
        key=lambda option: (option.usd_per_hour, option.devices, option.split is not None),
    )
    return Plan(question, tuple(good), tuple(o for o in options if o.refusal))


def engine_of(question: Question, accelerator: Accelerator, layout: Layout) -> Engine:
    """One replica's engine; its KV room may be negative: the weights do not fit then."""
    memory = accelerator.memory_bytes * question.memory_share - OVERHEAD_BYTES
    line = Roofline(
        question.card,
        accelerator,
        layout,
        question.efficiencies,
        question.hidden,
        question.kv_heads,
    )
    room = memory * layout.devices - line.weight_bytes
    return Engine(line, room, question.most_streams, question.batched_tokens)


def _layouts(question: Question, accelerator: Accelerator) -> Iterator[Layout]:
    """Tensor parallelism within a node, or for experts data-parallel attention; pipelines of nodes
    only for what fits into none."""
    degrees = [n for n in (1, 2, 4, 8, 16) if n <= accelerator.per_node]
    layouts = [Layout(n) for n in degrees if question.heads % n == 0]
    if question.card.shape.experts:
        layouts += [Layout(data=n) for n in degrees if n > 1]
    fitting = [one for one in layouts if _fits(question, accelerator, one)]
    yield from (fitting or layouts[-1:])
    if not fitting:
        deep = (Layout(layouts[-1].tensor, stages) for stages in (2, 4, 8))
        yield from itertools.islice((x for x in deep if _fits(question, accelerator, x)), 1)


def _fits(question: Question, accelerator: Accelerator, layout: Layout) -> bool:
    return engine_of(question, accelerator, layout).kv_bytes > 0


def _options(question: Question, accelerator: Accelerator, layout: Layout) -> Iterator[Option]:
    engine = engine_of(question, accelerator, layout)
    lengths, card = question.lengths, question.card
    room = max(0.0, engine.kv_bytes)
    option = Option(
        accelerator,
        layout,
        engine.kv_bytes,
        card.most_tokens(int(room)),
        engine.room(lengths) if room else 0,
    )
    refusal = _refusal(question, engine)
    state = None if refusal else best_rate(engine, lengths, question.slo)
    if not refusal and state is None:
        refusal = _too_slow(question, engine)
    if refusal or state is None:
        yield replace(option, refusal=refusal)
        return
    replicas = math.ceil(question.rate_per_s / state.rate_per_s)
    at_peak = balance(engine, lengths, question.rate_per_s / replicas, question.slo.share)
    usd = replicas * layout.devices * accelerator.usd_per_hour
    yield replace(option, state=state, at_peak=at_peak, replicas=replicas, usd_per_hour=usd)
    split = best_split(engine, lengths, question.slo, question.rate_per_s)
    if split is not None:
        devices = (split.prefills + split.decodes) * layout.devices
        usd = devices * accelerator.usd_per_hour
        yield replace(option, split=split, usd_per_hour=usd)


def _refusal(question: Question, engine: Engine) -> str:
    """Why such a replica cannot serve the traffic at all; empty if it can."""
    card, lengths = question.card, question.lengths
    longest = math.ceil(lengths.prompt + lengths.output)
    if card.max_tokens and longest > card.max_tokens:
        return f"a request has {longest:,} tokens, the model takes {card.max_tokens:,}"
    if engine.kv_bytes <= 0:
        return f"the weights do not fit: {-engine.kv_bytes / 1e9:,.1f} GB are missing"
    if card.request_bytes(longest) > engine.kv_bytes:
        return "the KV cache has no room for one request"
    return ""


def _too_slow(question: Question, engine: Engine) -> str:
    """Which limit even a replica with next to no load does not keep."""
    slo, lengths = question.slo, question.lengths
    idle = balance(engine, lengths, 1e-6, slo.share)
    if idle is None:
        return "a prompt takes longer than there is time"
    if idle.tpot_s > slo.tpot_s:
        return f"TPOT is {idle.tpot_s * 1e3:,.1f} ms even without load"
    return f"TTFT is {idle.ttft_tail_s * 1e3:,.0f} ms even without load"
