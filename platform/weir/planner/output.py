"""A plan as JSON, and as settings that can be served as they are."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import yaml

from weir.planner.plan import Option, Plan, Question
from weir.planner.prior import assumed_capacity
from weir.planner.serving import State


def plan_json(plan: Plan, api_usd: tuple[float, float] | None = None) -> dict[str, Any]:
    """Everything that :func:`weir.planner.explain.explain` tells, as data; units in the names."""
    question, card = plan.question, plan.question.card
    told: dict[str, Any] = {
        "traffic": asdict(question.traffic),
        "rate_per_s": question.rate_per_s,
        "slo": asdict(question.slo),
        "model": {
            "parameters": card.shape.parameters,
            "active_parameters": card.shape.active_parameters,
            "weight_bytes": card.weight_bytes,
            "kv_bytes_per_token": card.kv_bytes_per_token,
        },
        "efficiencies": asdict(question.efficiencies),
        "options": [_option(plan, option) for option in plan.options],
        "refused": [
            {"accelerator": o.accelerator.name, **asdict(o.layout), "why": o.refusal}
            for o in plan.refused
        ],
    }
    if api_usd is not None and plan.best is not None:
        told["api"] = {
            "usd_per_hour": plan.api_usd_per_hour(*api_usd),
            "break_even_requests_per_s": plan.break_even_per_s(plan.best, *api_usd),
        }
    return told


def _option(plan: Plan, option: Option) -> dict[str, Any]:
    split = option.split
    return {
        "name": option.name,
        "accelerator": option.accelerator.name,
        **asdict(option.layout),
        "devices": option.devices,
        "replicas": option.replicas or None,
        "prefill_replicas": split.prefills if split else None,
        "decode_replicas": split.decodes if split else None,
        "kv_tokens": option.kv_tokens,
        "most_streams": option.streams,
        "usd_per_hour": option.usd_per_hour,
        "usd_per_million_tokens": plan.usd_per_million_tokens(option),
        "one_replica": _state(option.state),
        "at_planned_rate": _state(option.at_peak or (split.decode if split else None)),
        "ttft_tail_s": split.ttft_tail_s if split else None,
    }


def _state(state: State | None) -> dict[str, float] | None:
    return None if state is None else {**asdict(state), "tpot_s": state.tpot_s}


def settings_yaml(plan: Plan, option: Option, name: str, source: str, args: dict[str, Any]) -> str:
    """Settings for ``weir up --profile gpu --config``. ``args``: more of vLLM's arguments.

    The price of a replica-hour is in it, so that the ledger knows what capacity costs; and what a
    replica can do, which the autoscaler goes out from between one replica and those of the peak.
    """
    question, layout = plan.question, option.layout
    parallel: dict[str, Any] = {"tensor": layout.tensor, "pipeline": layout.pipeline}
    if layout.data > 1:
        parallel["data"] = layout.data
    if question.card.shape.experts and layout.devices > 1:
        parallel["experts"] = True
    hourly = round(layout.devices * option.accelerator.usd_per_hour, 6)
    model: dict[str, Any] = {
        "name": name,
        "source": source,
        "accelerator": option.accelerator.name,
        "parallel": parallel,
        "engine": {
            "mode": "process",
            "args": {
                "gpu_memory_utilization": question.memory_share,
                "max_num_seqs": question.most_streams,
                "max_num_batched_tokens": question.batched_tokens,
                **args,
            },
        },
        "price": {"replica_usd_per_hour": hourly},
    }
    if option.split is None:
        model["replicas"] = option.replicas
        model["autoscaling"] = _scaling(question, option)
    else:
        model["pools"] = [
            {"name": "prefill", "role": "prefill", "replicas": option.split.prefills},
            {"name": "decode", "role": "decode", "replicas": option.split.decodes},
        ]
    head = f"# {option.name}: {option.usd_per_hour:,.2f} USD an hour.\n"
    return head + yaml.safe_dump({"models": [model]}, sort_keys=False)


def _scaling(question: Question, option: Option) -> dict[str, Any]:
    capacity = assumed_capacity(question, option)
    told = {
        "prefill_tokens_per_s": round(capacity.prefill_tokens_per_s),
        "decode_tokens_per_s": round(capacity.decode_tokens_per_s),
        "usable": round(capacity.usable, 2),
    }
    return {"min_replicas": 1, "max_replicas": option.replicas, "capacity": told}
