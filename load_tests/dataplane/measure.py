"""One system in one round: started, loaded in several ways, accounted, ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from load_tests.loadgen import (
    CHAT,
    MESSAGES,
    RESPONSES,
    Dialect,
    Load,
    figures,
    prompt_texts,
    run_load,
)
from load_tests.servers import Accounts, EngineWorkload, Started, cpu_between, memory_by_role
from load_tests.servers.accounting import CpuReading, Memory
from load_tests.servers.first_answer import await_answer

PROMPT_TOKENS = 100
ANSWER_PATIENCE_S = 240.0
DISTINCT_PROMPTS = 512  # more than the KV cache holds, so a prompt that comes again is not in it


@dataclass(frozen=True, slots=True)
class Phase:
    """``streams`` closed-loop streams of ``tokens`` output tokens each, in a ``dialect``. ``asks``:
    what its bodies have beyond those of a plain request."""

    name: str
    streams: int
    tokens: int
    asks: Mapping[str, Any] = field(default_factory=dict)
    dialect: Dialect = CHAT


LOOK_UP = {
    "name": "look_up_order",
    "description": "Look up an order of a customer.",
    "parameters": {
        "type": "object",
        "properties": {"order_id": {"type": "string"}, "with_items": {"type": "boolean"}},
        "required": ["order_id"],
    },
}
# An answer that keeps to the schema is longer than a phase's tokens: all end by their length.
LONG_NOTE = {
    "type": "object",
    "properties": {"note": {"type": "string", "minLength": 600}},
    "required": ["note"],
    "additionalProperties": False,
}
FULL = Phase("full", 32, 32)
ONE_TOKEN = Phase("one_token", 32, 1)
ALONE = Phase("alone", 1, 32)
TOOLS = Phase(
    "tools", 32, 32, {"tools": [{"type": "function", "function": LOOK_UP}], "tool_choice": "auto"}
)
JSON_SCHEMA = Phase(
    "json_schema",
    32,
    32,
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "note", "schema": LONG_NOTE, "strict": True},
        }
    },
)
LOGPROBS = Phase("logprobs", 32, 32, {"logprobs": True, "top_logprobs": 2})
IN_RESPONSES = Phase("responses", 32, 32, dialect=RESPONSES)
IN_MESSAGES = Phase("messages", 32, 32, dialect=MESSAGES)
PLAIN = (FULL, ONE_TOKEN, ALONE)
KINDS = (TOOLS, JSON_SCHEMA, LOGPROBS)
#: Plain requests in other dialects than chat.
SPOKEN = (IN_RESPONSES, IN_MESSAGES)
PHASES = (*PLAIN, *KINDS, *SPOKEN)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long each phase runs."""

    warmup_s: float
    window_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One phase of one round. ``cpu_s``: by role, within the window; ``complete``: requests of that
    window, the shares of those that it cut off included."""

    figures: Mapping[str, Any]
    cpu_s: Mapping[str, float]
    complete: float
    generator_cpu_share: float
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """All phases of one start of one system. ``idle_cpu_share``: by role, cores used by doing
    nothing, before the first load."""

    phases: Mapping[str, Measured]
    memory: Mapping[str, Memory]
    idle_cpu_share: Mapping[str, float]
    seconds_to_ready: float


class Prompts:
    """Bodies for each phase of a round: the same for every system of that round."""

    def __init__(self, workload: EngineWorkload, seed: int) -> None:
        self._workload = workload
        self._seed = seed
        self._count_tokens = workload.token_counter()
        self._made: dict[tuple[int, str], list[bytes]] = {}

    def bodies(self, number: int, phase: Phase) -> Sequence[bytes]:
        """Request bodies of round ``number``."""
        key = (number, phase.name)
        if key not in self._made:
            seed = self._seed * 1_000_003 + number * 31 + PHASES.index(phase)
            texts = prompt_texts(seed, DISTINCT_PROMPTS, PROMPT_TOKENS, self._count_tokens)
            name = self._workload.served_name
            self._made[key] = phase.dialect.bodies(name, texts, phase.tokens, phase.asks)
        return self._made[key]


def measure_round(
    server: Started, prompts: Prompts, number: int, pace: Pace, asked: Sequence[Phase] = PLAIN
) -> Round:
    """Run the phases one after the other; memory is read after the fullest.

    Raises:
        StartError: it has started, but answers nothing.
    """
    phases: dict[str, Measured] = {}
    seconds_to_ready = first_answer(server, prompts, number)
    idle = idle_cpu_share(server, pace)
    memory: Mapping[str, Memory] = {}
    for phase in asked:
        phases[phase.name] = measure_phase(server, phase, prompts.bodies(number, phase), pace)
        if phase is FULL:
            memory = memory_by_role(server.pids())
    return Round(phases, memory, idle, seconds_to_ready)


def first_answer(server: Started, prompts: Prompts, number: int = 0) -> float:
    """Seconds from its start until a client had an answer.

    Raises:
        StartError: it has started, but answers nothing.
    """
    started_s = time.monotonic()
    await_answer(server.target, prompts.bodies(number, ALONE)[0], ANSWER_PATIENCE_S)
    return server.seconds_to_ready + time.monotonic() - started_s


def idle_cpu_share(server: Started, pace: Pace) -> dict[str, float]:
    """Cores used by doing nothing, by role."""
    time.sleep(pace.warmup_s)  # what starting left to do
    accounts, start_s = Accounts(server.pids()), time.monotonic()
    before = accounts.read()
    time.sleep(pace.window_s / 2)
    spent = cpu_between(before, accounts.read())
    seconds = time.monotonic() - start_s
    return {role: cpu_s / seconds for role, cpu_s in spent.items()}


def measure_phase(server: Started, phase: Phase, bodies: Sequence[bytes], pace: Pace) -> Measured:
    """One load, after a warm-up."""
    accounts = Accounts(server.pids())
    readings: list[CpuReading] = []
    dialect = phase.dialect
    load = Load(phase.streams, phase.tokens, pace.warmup_s, pace.window_s, dialect.shape)
    target = replace(server.target, path=dialect.path) if phase in SPOKEN else server.target
    outcome = run_load(target, load, bodies, lambda: readings.append(accounts.read()))
    found = figures(outcome.samples, outcome.window_s, phase.streams)
    return Measured(
        figures=found,
        cpu_s=cpu_between(readings[0], readings[1]),
        complete=found["req_per_s"] * outcome.window_s,
        generator_cpu_share=outcome.generator_cpu_s / outcome.window_s,
        faults=outcome.faults,
    )
