"""What the autoscaler assumes of a replica before it has seen one: from the plan's roofline."""

from __future__ import annotations

from weir.autoscaling.report import Capacity
from weir.planner.plan import Option, Question, engine_of

_HALVINGS = 24
_LEAST_USABLE = 0.05


def assumed_capacity(question: Question, option: Option) -> Capacity:
    """Of one replica of an option that serves the traffic. ``usable``: the share of its time that
    requests take at the highest rate at which TTFT and TPOT hold."""
    engine, lengths = engine_of(question, option.accelerator, option.layout), question.lengths
    attended = lengths.cached + lengths.computed / 2
    whole_s = engine.roofline.step(question.batched_tokens, 0, lengths.context, attended).total_s

    def step_s(streams: float) -> float:
        return engine.roofline.step(0, streams, lengths.context, 0).total_s

    low, high = 1.0, float(max(1, engine.room(lengths)))
    if step_s(high) > question.slo.tpot_s:
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if step_s(middle) <= question.slo.tpot_s else (low, middle)
        high = low
    prefill, decode = question.batched_tokens / whole_s, high / step_s(high)
    used = 0.0
    if option.state is not None:
        each_s = lengths.computed / prefill + lengths.output / decode
        used = option.state.rate_per_s * each_s
    return Capacity(prefill, decode, min(1.0, max(_LEAST_USABLE, used)))
