"""``weir plan``: its flags. What it does is in :mod:`weir.cli.planning`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plan(
    model: Annotated[str, typer.Argument(help="A model's folder, or its config.json.")],
    accelerator: Annotated[
        list[str] | None, typer.Option(help="H100, H200, L40S, ...; may be given several times.")
    ] = None,
    usd_per_hour: Annotated[
        list[float] | None, typer.Option(help="Of one device; once for each --accelerator.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0, help="Requests per second.")] = None,
    prompt_tokens: Annotated[float, typer.Option(min=1, help="Of a mean prompt.")] = 1000.0,
    output_tokens: Annotated[float, typer.Option(min=1, help="Of a mean answer.")] = 200.0,
    cached: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of prompt tokens found in the KV cache.")
    ] = 0.0,
    trace: Annotated[
        Path | None,
        typer.Option(help="Traffic from a file instead (Mooncake's JSONL, Azure's CSV)."),
    ] = None,
    ttft_ms: Annotated[float, typer.Option(min=1, help="Limit for 99 % of requests.")] = 2000.0,
    tpot_ms: Annotated[float, typer.Option(min=0.1, help="Limit for the mean.")] = 50.0,
    dtype: Annotated[str | None, typer.Option(help="Of the weights: bfloat16, ...")] = None,
    quantization: Annotated[str | None, typer.Option(help="fp8, mxfp4: as if quantized.")] = None,
    kv_dtype: Annotated[str | None, typer.Option(help="Of the KV cache: fp8, ...")] = None,
    headroom: Annotated[float, typer.Option(min=0, help="More than the peak, as a share.")] = 0.1,
    api: Annotated[
        str | None, typer.Option(help="Compare with an API: PROVIDER:MODEL, or USD as IN,OUT.")
    ] = None,
    settings: Annotated[Path | None, typer.Option(help="Write settings to serve it.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write a PNG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Plan capacity: replicas, layout and cost for given traffic and limits, with every step."""
    from weir.cli.planning import PlanOptions
    from weir.cli.planning import plan as make

    options = PlanOptions(
        model,
        tuple(accelerator or ("H100",)),
        tuple(usd_per_hour or ()),
        dtype,
        quantization,
        kv_dtype,
        rate,
        prompt_tokens,
        output_tokens,
        cached,
        trace,
        ttft_ms,
        tpot_ms,
        headroom,
        api,
        settings,
        picture,
    )
    make(options, as_json)
