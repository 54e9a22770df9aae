"""Levers of the scheduler: chunks, budget, order, giving way, and caps on outputs."""

from __future__ import annotations

from typing import Any

from deployments.levers.engine import Bench, Engine, Seen, Timed, share_equal
from deployments.levers.registry import Outcome, lever
from router.admission.engine_priority import EnginePriority

Steps = tuple[dict[str, Seen], list[float]]
Arrivals = list[tuple[int, str, list[int], int, int]]


def _stepped(bench: Bench, arrivals: Any, **arguments: Any) -> Steps:
    """One engine, stepped through ``arrivals(engine)`` twice: the first time warms it up."""
    engine = Engine(bench.model, async_scheduling=False, **arguments)
    try:
        engine.step_through(arrivals(engine))
        return engine.step_through(arrivals(engine))
    finally:
        engine.close()


@lever("chunked-prefill", "enable_chunked_prefill: true, max_num_batched_tokens: 256")
def chunked_prefill(bench: Bench) -> Outcome:
    """The longest step of running decodes while a prompt of 1,900 tokens arrives."""

    def arrivals(engine: Engine) -> Arrivals:
        short = bench.prompts(engine, 4)
        rows = [(0, f"d{n}", prompt, 40, 0) for n, prompt in enumerate(short)]
        return [*rows, (10, "long", bench.prompts(engine, 1, 1900)[0], 2, 0)]

    _, whole = _stepped(bench, arrivals, enable_chunked_prefill=False)
    chunks: dict[str, Any] = {"enable_chunked_prefill": True, "max_num_batched_tokens": 256}
    _, chunked = _stepped(bench, arrivals, **chunks)
    gain = max(whole) / max(chunked)
    ask = _long_answers(bench)
    equal = share_equal(*bench.compare(ask, {"enable_chunked_prefill": False}, chunks))
    return Outcome(True, equal, gain, "longest step beside a long prompt")


@lever("token-budget", "max_num_batched_tokens: 2048")
def token_budget(bench: Bench) -> Outcome:
    """Sixteen prompts of 500 tokens with a budget of 2,048 tokens a step, against 128."""
    small, large = bench.compare(
        _long_answers(bench, 16, 500, 4),
        {"max_num_batched_tokens": 128},
        {"max_num_batched_tokens": 2048},
    )
    gain = small.seconds / large.seconds
    return Outcome(True, share_equal(small, large), gain, "time of 16 prompts, 2048 over 128")


@lever("priority", "scheduling_policy: priority")
def priority(bench: Bench) -> Outcome:
    """The step in which the last of 13 requests, an urgent one, has its first token."""

    def arrivals(engine: Engine) -> Arrivals:
        *others, urgent = bench.prompts(engine, 13)
        rows = [(0, f"b{n}", prompt, 20, 5) for n, prompt in enumerate(others)]
        return [*rows, (1, "urgent", urgent, 4, 0)]

    by_arrival, _ = _stepped(bench, _without_priority(arrivals), max_num_seqs=2)
    seen, _ = _stepped(bench, arrivals, max_num_seqs=2, scheduling_policy="priority")
    gain = by_arrival["urgent"].first_step / seen["urgent"].first_step
    return Outcome(gain > 1, None, gain, "steps until an urgent request's first token")


def _without_priority(arrivals: Any) -> Any:
    def plain(engine: Engine) -> Arrivals:
        return [
            (step, name, prompt, tokens, 0) for step, name, prompt, tokens, _ in arrivals(engine)
        ]

    return plain


@lever("yielding", "engine.yielding: true, scheduling_policy: priority")
def yielding(bench: Bench) -> Outcome:
    """Steps until an urgent request's first token beside a prompt of fifteen steps."""

    def arrivals(engine: Engine) -> Arrivals:
        long, urgent = bench.prompts(engine, 1, 1900)[0], bench.prompts(engine, 1)[0]
        stamp = EnginePriority(lambda: 0.0).stamp
        # Ranks of two classes: in each urgency there are requests in time, and late ones.
        return [(0, "long", long, 2, stamp(2)), (2, "urgent", urgent, 4, stamp(0))]

    given: dict[str, Any] = {"scheduling_policy": "priority", "max_num_batched_tokens": 128}
    plain, _ = _stepped(bench, arrivals, **given)
    own = "deployments.yielding.YieldingScheduler"
    gives_way, _ = _stepped(bench, arrivals, **given, scheduler_cls=own)
    waited, waits = (seen["urgent"].first_step - 2 for seen in (plain, gives_way))
    gain = waited / max(1, waits)
    return Outcome(gain > 1, None, gain, "steps until an urgent request's first token")


@lever("output-cap", "max_tokens of a class's requests")
def output_cap(bench: Bench) -> Outcome:
    """Sixteen answers of at most 16 tokens against 96; the cap is kept exactly."""
    engine = Engine(bench.model)
    try:
        prompts = bench.prompts(engine, 16)
        long = engine.timed(lambda: engine.answer(prompts, 96), bench.runs)
        capped = engine.timed(lambda: engine.answer(prompts, 16), bench.runs)
    finally:
        engine.close()
    kept = all(len(answer) == 16 for answer in capped.answers)
    begins = Timed([answer[:16] for answer in long.answers], 0.0)
    gain = long.seconds / capped.seconds
    return Outcome(kept, share_equal(begins, capped), gain, "time of a batch, cap 16 over 96")


def _long_answers(bench: Bench, count: int = 4, tokens: int = 900, out: int = 16) -> Any:
    def ask(engine: Engine) -> Timed:
        return engine.answer(bench.prompts(engine, count, tokens), out)

    return ask
