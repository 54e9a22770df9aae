"""The card next to what vLLM allocates, and the counted work next to vLLM's own estimate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, sys
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs.engine import tokens_input
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.executor.abstract import Executor
from deployments.engine import EngineChild, LoadRecorder
from deployments.replica_card import engine_card, work_counter

ROOM = 32 << 20

async def main(model):
    config = AsyncEngineArgs(
        model=model, dtype="float32", max_model_len=512, block_size=32, max_num_seqs=8,
        kv_cache_memory_bytes=ROOM, enforce_eager=True, enable_prefix_caching=True,
        distributed_executor_backend="uni", enable_mfu_metrics=True,
    ).create_engine_config()
    child = EngineChild(config, lambda code: None)
    child.start()
    told = {"flops": 0, "bytes": 0}
    recorders = []

    class Both(LoadRecorder):
        def record(self, scheduler_stats, iteration_stats, *a, **k):
            if scheduler_stats is not None and scheduler_stats.perf_stats is not None:
                perf = scheduler_stats.perf_stats
                told["flops"] += perf.num_flops_per_gpu
                told["bytes"] += perf.num_read_bytes_per_gpu + perf.num_write_bytes_per_gpu
                scheduler_stats.perf_stats = None  # count from the tokens
            super().record(scheduler_stats, iteration_stats, *a, **k)

    def logger(config, index):
        recorders.append(Both(config.cache_config.num_gpu_blocks, work_counter(config)))
        return recorders[-1]

    client = AsyncLLM(
        vllm_config=config, executor_class=Executor.get_class(config), log_requests=False,
        log_stats=True, stat_loggers=[logger], client_addresses=child.client_addresses(),
    )

    async def run(number, prompt):
        params = SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True)
        async for _ in client.generate(tokens_input(prompt), params, f"r{number}"):
            pass

    await asyncio.gather(*(run(n, list(range(10 + n, 310 + n))) for n in range(4)))
    card, work = engine_card(config), recorders[0].work
    print("RESULT" + json.dumps({
        "blocks": config.cache_config.num_gpu_blocks, "fits": ROOM // card.block_bytes,
        "attention_tokens": card.attention_tokens, "told": told,
        "counted": {"flops": work.flops, "bytes": work.moved_bytes},
    }), flush=True)

asyncio.run(main(sys.argv[1]))
os._exit(0)
"""


@pytest.fixture(scope="module")
def result(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT)


def test_as_many_blocks_as_the_card_says(result: dict[str, Any]) -> None:
    assert result["blocks"] == result["fits"]


def test_the_replica_knows_where_attention_outweighs_the_matrices(result: dict[str, Any]) -> None:
    assert 1000 < result["attention_tokens"] < 2000  # 1,440: five layers of a 4M-parameter model


def test_work_from_tokens_is_close_to_the_engines_own_estimate(result: dict[str, Any]) -> None:
    told, counted = result["told"], result["counted"]
    assert told["flops"] > 0
    assert 0.7 < counted["flops"] / told["flops"] < 1.4
    assert counted["bytes"] > 0
