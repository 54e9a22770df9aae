"""The traffic that rules are compared on, and its targets.

Rules were tuned on ``TUNING`` (other recordings, or sessions and minutes that are not in the
reported ones); ``REPORTED`` was run with what came out of that.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from load_tests.sim.figures import Slo
from load_tests.traces import Trace, TraceRequest, load_trace, merge
from load_tests.traces.shaping import head

SHARED = Path(__file__).parents[3] / "shared" / "traces"
BLOCK_TOKENS = 512
#: Reading speed, with a first token as in weir bench routing.
READING = Slo(5.0, 0.15)
#: aiperf's goodput example for Mooncake: "time_to_first_token:2000 inter_token_latency:25".
FAST = Slo(2.0, 0.025)
#: A document's summary: DistServe's targets for summarisation are 15 s and 150 ms.
DOCUMENT = Slo(15.0, 0.15)


@dataclass(frozen=True, slots=True)
class Traffic:
    """A trace with targets per class."""

    name: str
    trace: Trace
    slos: Mapping[str, Slo]


def conversations(file: str, requests: int, slo: Slo, name: str) -> Traffic:
    """A Mooncake recording."""
    trace = head(load_trace(SHARED / file, None), requests)
    return Traffic(name, trace, {"standard": slo})


def agents(half: int, slo: Slo, name: str) -> Traffic:
    """Every other WEKA session, from ``half`` (0 or 1) on."""
    trace = load_trace(SHARED / "weka_claudecode_dev.jsonl.gz", None)
    return Traffic(name, _sessions(trace, trace.sessions[half::2]), {"standard": slo})


def _sessions(trace: Trace, sessions: tuple[tuple[int, ...], ...]) -> Trace:
    """These sessions alone, renumbered."""
    kept = [index for session in sessions for index in session]
    places = {index: place for place, index in enumerate(kept)}
    requests = []
    for index in kept:
        request = trace.requests[index]
        after = tuple((places[parent], think_s) for parent, think_s in request.after)
        requests.append(replace(request, after=after))
    renumbered = tuple(tuple(places[index] for index in session) for session in sessions)
    return replace(trace, requests=tuple(requests), sessions=renumbered)


def chat_and_documents(first_s: float, last_s: float, seed: int, name: str) -> Traffic:
    """Azure's conversations between ``first_s`` and ``last_s`` of the recording, all of them
    interactive, and one document of 16k to 96k tokens with a summary of 200 to 800 for every
    ``CHATS_PER_DOCUMENT`` of them at random times. Nothing is cached: the recording has no
    prefixes."""
    recorded = load_trace(SHARED / "azure2023_conv_dev.csv.gz", None)
    chat = [
        replace(request, arrival_s=request.arrival_s - first_s, priority_class="interactive")
        for request in recorded.requests
        if first_s <= request.arrival_s < last_s
    ]
    rng, span_s = random.Random(seed), last_s - first_s
    documents = sorted(
        (_document(rng, span_s) for _ in range(len(chat) // CHATS_PER_DOCUMENT)),
        key=lambda request: request.arrival_s,
    )
    parts = [Trace(name, "azure", BLOCK_TOKENS, tuple(part)) for part in (chat, documents)]
    return Traffic(name, merge(parts, name), {"interactive": FAST, "standard": DOCUMENT})


def prompts_and_answers(requests: int, seed: int, name: str) -> Traffic:
    """What is asked for changes twice: a phase of chat and documents, whose prompts are 20 times as
    long as their answers, then one of short prompts with long answers (Azure's conversations with
    prompts of 1,500 tokens at most and six times the output, 4,000 at most), and both once more.
    ``requests`` in each phase, at one rate, at which either kind is about as far from saturation.
    """
    documents = chat_and_documents(0.0, requests / 6.0, seed, name).trace.requests[:requests]
    recorded = load_trace(SHARED / "azure2023_conv_dev.csv.gz", None)
    answers = tuple(
        replace(
            request,
            prompt_tokens=min(request.prompt_tokens, 1500),
            output_tokens=min(4000, 6 * request.output_tokens),
            priority_class="interactive",
        )
        for request in recorded.requests[:requests]
    )
    phases = (documents, answers, documents, answers)
    placed = tuple(
        replace(
            request, arrival_s=number + (request.arrival_s - phase[0].arrival_s) / _span_s(phase)
        )
        for number, phase in enumerate(phases)
        for request in phase
    )
    trace = Trace(name, "azure", BLOCK_TOKENS, placed)
    return Traffic(name, trace, {"interactive": FAST, "standard": DOCUMENT})


def _span_s(phase: Sequence[TraceRequest]) -> float:
    """A little more than from the first arrival to the last."""
    return (phase[-1].arrival_s - phase[0].arrival_s) * (1 + 1 / len(phase))


#: So that documents are some three quarters of the prompt tokens.
CHATS_PER_DOCUMENT = 16


def _document(rng: random.Random, span_s: float) -> TraceRequest:
    return TraceRequest(
        arrival_s=rng.uniform(0.0, span_s),
        prompt_tokens=round(2 ** rng.uniform(14.0, 16.6)),
        output_tokens=rng.randint(200, 800),
        priority_class="standard",
    )


def tuning(requests: int, seed: int) -> list[Traffic]:
    """What rules are tuned on."""
    synthetic = "mooncake_synthetic.jsonl.gz"
    return [
        conversations(synthetic, requests, READING, "synthetic, 5 s / 150 ms"),
        conversations(synthetic, requests, FAST, "synthetic, 2 s / 25 ms"),
        agents(1, READING, "agents (odd), 5 s / 150 ms"),
        agents(1, FAST, "agents (odd), 2 s / 25 ms"),
        chat_and_documents(1200.0, 1200.0 + requests / 6.0, seed, "chat and documents (later)"),
    ]


def reported(requests: int, seed: int) -> list[Traffic]:
    """What is reported."""
    recorded = "mooncake_conv_dev.jsonl.gz"
    return [
        conversations(recorded, requests, READING, "conversations, 5 s / 150 ms"),
        conversations(recorded, requests, FAST, "conversations, 2 s / 25 ms"),
        agents(0, READING, "agents, 5 s / 150 ms"),
        agents(0, FAST, "agents, 2 s / 25 ms"),
        chat_and_documents(0.0, requests / 6.0, seed + 1, "chat and documents"),
        prompts_and_answers(requests, seed + 1, "prompts and answers in turn"),
    ]
