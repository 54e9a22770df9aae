"""A replica of two processes answers as one of a single process does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from deployments import wire
from deployments.resuming import let_resume, prepare_workers
from deployments.yielding import let_yield

async def answers(model, tensor):
    config = AsyncEngineArgs(
        model=model, dtype="float32", max_model_len=512, block_size=32, max_num_seqs=8,
        kv_cache_memory_bytes=32 << 20, enforce_eager=True, enable_prefix_caching=True,
        tensor_parallel_size=tensor, scheduling_policy="priority",
        distributed_executor_backend="mp" if tensor > 1 else "uni",
    ).create_engine_config()
    let_yield(config)
    let_resume(config)
    recorders = []
    def factory(config, index):
        recorders.append(LoadRecorder(config.cache_config.num_gpu_blocks or 0))
        return recorders[-1]
    client = AsyncLLM(config, Executor.get_class(config), log_stats=True, log_requests=False,
                      stat_loggers=[factory])
    await prepare_workers(client)
    generator = VllmGenerator(client, lambda: recorders[0].load, resumes=True)

    async def run(number, prompt, resume=None):
        got, ended = [], asyncio.Event()
        def put(message):
            got.append(message)
            if isinstance(message, wire.Done | wire.Failed):
                ended.set()
        sampling = wire.Sampling(max_tokens=24, temperature=0.0, ignore_eos=True)
        await generator.submit(
            wire.Submit(number, f"r{number}", prompt, sampling, resume=resume), put)
        await asyncio.wait_for(ended.wait(), 60)
        assert isinstance(got[-1], wire.Done), got[-1]
        return [t for m in got if isinstance(m, wire.Chunk | wire.Done) for t in m.tokens]

    prompts = [[(7 * n + 3 * i) % 900 + 10 for i in range(60 + 20 * n)] for n in range(6)]
    out = list(await asyncio.gather(*(run(n + 1, p) for n, p in enumerate(prompts))))
    out.append(await run(9, prompts[0], wire.Resume(out[0][:9], 0)))
    client.shutdown()
    return out

async def main(model):
    tensor = {n: await answers(model, n) for n in (1, 2)}
    print("RESULT" + json.dumps({"one": tensor[1], "two": tensor[2]}), flush=True)

asyncio.run(main(sys.argv[1]))
os._exit(0)
"""


@pytest.fixture(scope="module")
def result(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT)


def test_two_processes_generate_what_one_does(result: dict[str, Any]) -> None:
    assert [len(tokens) for tokens in result["one"]] == [24] * 6 + [15]
    assert len({tuple(tokens) for tokens in result["one"]}) > 3
    assert result["two"] == result["one"]


def test_they_go_on_where_another_replica_broke_off(result: dict[str, Any]) -> None:
    assert result["two"][6] == result["two"][0][9:]
