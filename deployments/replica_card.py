"""The card of a replica's own engine, and the meter of what it does with its device."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from deployments.peaks import find_peaks
from weir.cards import Card, CardError, make_card
from weir.cards.usage import UsageMeter, WorkCounter

_LOG = logging.getLogger("weir.replica")


def engine_card(config: Any) -> Card | None:
    """The card of vLLM's ``VllmConfig``; None, and a line in the log, for a model without one."""
    model, cache = config.model_config, config.cache_config
    try:
        return make_card(
            model.hf_config.to_dict(),
            dtype=str(model.dtype).removeprefix("torch."),
            kv_dtype=cache.cache_dtype,
            block_size=cache.block_size,
        )
    except CardError as error:
        _LOG.info("no card, so no MFU and MBU", extra={"reason": str(error)})
        return None


def work_counter(config: Any) -> WorkCounter | None:
    """Counts an engine's work; None for a model without a card."""
    card = engine_card(config)
    if card is None:
        return None
    parallel = config.parallel_config
    devices = parallel.tensor_parallel_size * parallel.pipeline_parallel_size
    return WorkCounter(card, config.cache_config.num_gpu_blocks or 0, devices)


async def usage_meter(
    counter: WorkCounter | None, config: Any, accelerator: str | None
) -> UsageMeter | None:
    """None where the model has no card or the device is not known."""
    if counter is None:
        return None
    peaks = await asyncio.to_thread(find_peaks, accelerator, config.model_config.dtype)
    if peaks is None:
        return None
    told = {
        "gflops_per_s": round(peaks.flops_per_s / 1e9, 1),
        "gigabytes_per_s": round(peaks.bytes_per_s / 1e9, 1),
        "source": peaks.source,
    }
    _LOG.info("peaks of the device", extra=told)
    return UsageMeter(counter, peaks)
