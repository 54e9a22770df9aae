"""``weir plan``: what a model needs to serve given traffic within limits, and what that costs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weir.cards.shape import text_config
from weir.cli.exits import CommandError, ExitCode
from weir.errors import ConfigError
from weir.planner.plan import Plan, Question, make_plan
from weir.planner.serving import Slo
from weir.planner.traffic import Traffic, read_traffic

_DEFAULT_ACCELERATORS = ("H100",)


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """As on the command line; ``trace`` wins over rates and lengths."""

    model: str
    accelerators: tuple[str, ...] = _DEFAULT_ACCELERATORS
    usd_per_hour: tuple[float, ...] = ()
    dtype: str | None = None
    quantization: str | None = None
    kv_dtype: str | None = None
    rate: float | None = None
    prompt_tokens: float = 1000.0
    output_tokens: float = 200.0
    cached: float = 0.0
    trace: Path | None = None
    ttft_ms: float = 2000.0
    tpot_ms: float = 50.0
    headroom: float = 0.1
    api: str | None = None
    settings: Path | None = None
    picture: Path | None = None


def plan(options: PlanOptions, as_json: bool) -> None:
    """Print the plan, and write what was asked for.

    Raises:
        ConfigError: the model, an accelerator, the trace or the API's price cannot be read.
        CommandError: nothing serves the traffic within its limits.
    """
    from weir.planner.api_prices import api_prices
    from weir.planner.explain import explain
    from weir.planner.output import plan_json

    made = make_plan(question_of(options))
    api = api_prices(options.api) if options.api else None
    print(json.dumps(plan_json(made, api)) if as_json else explain(made, api), end="\n" * as_json)
    if made.best is None:
        raise CommandError("nothing serves this traffic within its limits", ExitCode.FAILURE)
    _write(options, made)


def question_of(options: PlanOptions) -> Question:
    """What the options ask.

    Raises:
        ConfigError: as :func:`plan`.
    """
    from weir.cards import make_card
    from weir.cards.attention import is_mla, kv_heads
    from weir.planner.accelerators import find_accelerator

    config = _config(Path(options.model).expanduser())
    if options.quantization:
        config = {**config, "quantization_config": {"quant_method": options.quantization}}
    text = text_config(config)
    prices = options.usd_per_hour or (None,) * len(options.accelerators)
    if len(prices) != len(options.accelerators):
        raise ConfigError("--usd-per-hour: one for each --accelerator", param="usd_per_hour")
    return Question(
        card=make_card(config, dtype=options.dtype, kv_dtype=options.kv_dtype),
        hidden=int(text["hidden_size"]),
        heads=int(text["num_attention_heads"]),
        kv_heads=1 if is_mla(text) else kv_heads(text),
        traffic=_traffic(options),
        slo=Slo(options.ttft_ms / 1e3, options.tpot_ms / 1e3),
        accelerators=[
            find_accelerator(name, usd)
            for name, usd in zip(options.accelerators, prices, strict=True)
        ],
        headroom=options.headroom,
    )


def _traffic(options: PlanOptions) -> Traffic:
    if options.trace is not None:
        return read_traffic(options.trace)
    if options.rate is None:
        raise ConfigError("--rate or --trace says what is to be served", param="rate")
    rate = options.rate
    return Traffic(rate, rate, options.prompt_tokens, options.output_tokens, options.cached)


def _config(path: Path) -> dict[str, Any]:
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file} cannot be read as a model's config.json ({error})", param="model"
        ) from None
    if not isinstance(config, dict):
        raise ConfigError(f"{file} is not a JSON object", param="model")
    return config


def _write(options: PlanOptions, made: Plan) -> None:
    from weir.planner.output import settings_yaml
    from weir.planner.picture import draw_plan

    assert made.best is not None
    if options.settings is not None:
        path = Path(options.model).expanduser()
        folder = path if path.is_dir() else path.parent
        args: dict[str, Any] = {}
        if options.dtype:
            args["dtype"] = options.dtype
        if options.kv_dtype:
            args["kv_cache_dtype"] = options.kv_dtype
        name = folder.name.lower() or "model"
        text = settings_yaml(made, made.best, name, str(folder.resolve()), args)
        options.settings.write_text(text, "utf-8")
    if options.picture is not None and not draw_plan(made, options.picture):
        raise CommandError("the picture needs matplotlib", ExitCode.FAILURE)
