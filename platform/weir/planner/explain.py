"""A plan in words: every step with its figures, so that each can be checked by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator

from weir.planner.plan import OVERHEAD_BYTES, Option, Plan, engine_of
from weir.planner.roofline import StepTime
from weir.planner.serving import State
from weir.planner.tiers import tier_costs

_GB = 1e9


def explain(plan: Plan, api_usd: tuple[float, float] | None = None) -> str:
    """All lines. ``api_usd``: an API's prices per million prompt and output tokens."""
    blocks = [_traffic(plan), _model(plan)]
    best = plan.best
    if best is None:
        blocks.append(["Nothing serves this traffic within its limits.", *_refused(plan)])
        return _joined(blocks)
    blocks += [_memory(plan, best), _step(plan, best), _replicas(plan, best), _tiers(plan, best)]
    blocks += [_options(plan), _refused(plan), _cost(plan, best, api_usd), _sources(plan)]
    return _joined(blocks)


def _joined(blocks: list[list[str]]) -> str:
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _traffic(plan: Plan) -> list[str]:
    question, traffic = plan.question, plan.question.traffic
    slo = question.slo
    return [
        f"Traffic ({traffic.origin})",
        f"  peak {traffic.peak_per_s:.3g} req/s, mean {traffic.mean_per_s:.3g}; planned for peak "
        f"+ {question.headroom:.0%} = {question.rate_per_s:.3g} req/s",
        f"  prompts of {traffic.prompt:,.0f} tokens, {traffic.cached_share:.0%} of them cached; "
        f"answers of {traffic.output:,.0f}; the prompts' length varies by "
        f"{traffic.variation:.2f} of its mean",
        f"  limits: TTFT {slo.ttft_s * 1e3:,.0f} ms for {slo.share:.1%} of requests, "
        f"TPOT {slo.tpot_s * 1e3:,.1f} ms on the mean",
    ]


def _model(plan: Plan) -> list[str]:
    card = plan.question.card
    lines = [
        "Model",
        f"  {card.shape.parameters / 1e6:,.0f} million parameters, "
        f"{card.shape.active_parameters / 1e6:,.0f} per token; weights {_gb(card.weight_bytes)} "
        f"as {card.weights.name}",
        f"  attention: {card.attention}; KV {card.kv_bytes_per_token:,} bytes per token",
    ]
    if card.shape.experts:
        lines.append(
            f"  {card.shape.experts} experts, {card.shape.experts_per_token} per token: with more "
            "than one device, spread them (parallel.experts)"
        )
    return lines


def _memory(plan: Plan, option: Option) -> list[str]:
    question, device = plan.question, option.accelerator
    n = option.layout.devices
    weights = engine_of(question, device, option.layout).roofline.weight_bytes
    return [
        f"Memory of a replica: {option.layout.name} of {device.name}",
        f"  {n} × ({_gb(device.memory_bytes)} × {question.memory_share:.2f} − "
        f"{_gb(OVERHEAD_BYTES)} for the runtime) − {_gb(weights)} of weights "
        f"= {_gb(option.kv_bytes)} for KV",
        f"  that is {option.kv_tokens:,} tokens, or {option.streams:,} requests at a time "
        "(prompt and half of the answer each)",
    ]


def _step(plan: Plan, option: Option) -> list[str]:
    engine = engine_of(plan.question, option.accelerator, option.layout)
    lengths = plan.question.lengths
    state = option.at_peak or (option.split.decode if option.split else None)
    if state is None:
        return []
    prompts = 0.0 if option.split else state.rate_per_s * state.step_s * lengths.computed
    behind = lengths.cached + lengths.computed / 2
    step = engine.roofline.step(prompts, state.streams, lengths.context, behind)
    return [
        "An engine step at the planned rate" + (" (of a decode replica)" if option.split else ""),
        f"  {state.streams:,.1f} streams and {prompts:,.0f} prompt tokens: {_parts(step)}",
        f"  streams = rate × answer × step = {state.rate_per_s:.3g} × {lengths.output:,.0f} × "
        f"{state.step_s * 1e3:.2f} ms",
    ]


def _parts(step: StepTime) -> str:
    named = (
        ("matrices", step.matrices_s),
        ("attention of prompts", step.attention_s),
        ("reading KV", step.kv_s),
        ("links", step.links_s),
        ("own", step.own_s),
    )
    parts = ", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in named if seconds > 5e-6)
    return f"{step.total_s * 1e3:.2f} ms ({parts})"


def _replicas(plan: Plan, option: Option) -> list[str]:
    if option.split is not None:
        split = option.split
        return [
            "Replicas, prompts and answers apart",
            f"  prefill: {split.prefill_rate_per_s:.3g} req/s each within TTFT → {split.prefills}",
            f"  decode: {split.decode.rate_per_s:.3g} req/s each within TPOT → {split.decodes}",
            f"  the hand-over of a prompt's KV takes {split.transfer_s * 1e3:.1f} ms; expected "
            f"TTFT {split.ttft_tail_s * 1e3:,.0f} ms in the tail",
        ]
    assert option.state is not None
    return [
        "Replicas",
        f"  one serves {option.state.rate_per_s:.3g} req/s within the limits "
        f"({_state(option.state)})",
        f"  ⌈{plan.question.rate_per_s:.3g} / {option.state.rate_per_s:.3g}⌉ = {option.replicas}"
        + (f"; at the planned rate: {_state(option.at_peak)}" if option.at_peak else ""),
    ]


def _state(state: State) -> str:
    return (
        f"TTFT {state.ttft_mean_s * 1e3:,.0f} ms mean, {state.ttft_tail_s * 1e3:,.0f} ms tail; "
        f"TPOT {state.tpot_s * 1e3:.1f} ms; {state.load:.0%} of the room for prompts used"
    )


def _tiers(plan: Plan, option: Option) -> list[str]:
    engine = engine_of(plan.question, option.accelerator, option.layout)
    costs = tier_costs(engine, max(16, round(plan.question.traffic.prompt)))
    return [
        "KV outside the accelerator",
        f"  a prefix of {costs.tokens:,} tokens: {costs.compute_s * 1e3:,.1f} ms to compute, "
        f"{costs.from_host_s * 1e3:,.1f} ms from host memory (25 GB/s a device), "
        f"{costs.from_disk_s * 1e3:,.1f} ms from disk (5 GB/s)",
    ]


def _options(plan: Plan) -> list[str]:
    lines = ["Ways to do it, the cheapest first", _row("", "devices", "USD/h", "USD/M tok", "TPOT")]
    for option in plan.options[:10]:
        state = option.at_peak or (option.split.decode if option.split else None)
        lines.append(
            _row(
                option.name,
                str(option.devices),
                f"{option.usd_per_hour:,.2f}",
                f"{plan.usd_per_million_tokens(option):,.3f}",
                f"{state.tpot_s * 1e3:,.1f} ms" if state else "–",
            )
        )
    if len(plan.options) > 10:
        lines.append(f"  and {len(plan.options) - 10} dearer ones")
    return lines


def _row(name: str, *cells: str) -> str:
    return f"  {name:<38}" + "".join(f"{cell:>11}" for cell in cells)


def _refused(plan: Plan) -> list[str]:
    if not plan.refused:
        return []
    told = [f"  {o.layout.name} of {o.accelerator.name}: {o.refusal}" for o in plan.refused]
    return ["Not possible", *told]


def _cost(plan: Plan, option: Option, api_usd: tuple[float, float] | None) -> list[str]:
    traffic = plan.question.traffic
    each = option.usd_per_hour / (traffic.mean_per_s * 3600)
    lines = [
        "Cost",
        f"  {option.devices} × {option.accelerator.usd_per_hour:.2f} = "
        f"{option.usd_per_hour:,.2f} USD an hour; at the mean rate {each * 1e3:,.3f} USD per 1,000 "
        f"requests, {plan.usd_per_million_tokens(option):,.3f} USD per million tokens",
    ]
    if api_usd is not None:
        lines += _against(plan, option, *api_usd)
    return lines


def _against(plan: Plan, option: Option, usd_in: float, usd_out: float) -> Iterator[str]:
    api = plan.api_usd_per_hour(usd_in, usd_out)
    even = plan.break_even_per_s(option, usd_in, usd_out)
    yield (
        f"  an API at {usd_in:g} and {usd_out:g} USD per million prompt and output tokens: "
        f"{api:,.2f} USD an hour for the mean traffic"
    )
    if math.isinf(even):
        yield "  which costs nothing: there is no break-even"
        return
    words = "cheaper" if option.usd_per_hour < api else "dearer"
    yield (
        f"  own capacity is {words}; it breaks even at {even:,.3g} req/s on the mean "
        f"({even * 86400:,.0f} requests a day)"
    )


def _sources(plan: Plan) -> list[str]:
    e, best = plan.question.efficiencies, plan.best
    assert best is not None
    return [
        "Assumed",
        f"  peaks: {best.accelerator.source}; of them matrices reach {e.matrices:.0%}, attention "
        f"{e.attention:.0%}, memory {e.memory:.0%}, links {e.links:.0%}; a step costs "
        f"{e.step_s * 1e3:.1f} ms of its own",
        "  fitted and checked on published figures: weir bench planner; prices are examples unless "
        "given",
    ]


def _gb(count: float) -> str:
    return f"{count / _GB:,.1f} GB" if count >= _GB / 2 else f"{count / 1e6:,.1f} MB"
