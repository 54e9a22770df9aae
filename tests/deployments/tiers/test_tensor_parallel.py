"""KV tiers of an engine in two processes: each has half of every block, the tiers have both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, random, sys, tempfile
from pathlib import Path
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs.engine import tokens_input
from deployments.pools import pools_of
from deployments.resuming import let_resume, prepare_workers
from weir.settings import parse_settings

BLOCK_BYTES = 163840
RNG = random.Random(5)
PROMPTS = [[RNG.randrange(3, 2000) for _ in range(8 * 32 + 5)] for _ in range(12)]

def transfer(model, folder):
    tiers = {"memory_bytes": 64 * BLOCK_BYTES, "disk_folder": folder,
             "disk_bytes": 200 * BLOCK_BYTES}
    served = {"name": "m", "source": model, "parallel": {"tensor": 2},
              "engine": {"mode": "process", "kv_tiers": tiers}}
    return pools_of(parse_settings({"models": [served]}, "t").models[0])[0].kv_transfer()

def shared_memory():
    return {name for name in os.listdir("/dev/shm") if "vllm_offload" in name}

async def answers(model, tensor, kv_transfer, rounds):
    config = AsyncEngineArgs(
        model=model, dtype="float32", max_model_len=512, block_size=32, max_num_seqs=8,
        kv_cache_memory_bytes=40 * BLOCK_BYTES // tensor, enforce_eager=True,
        enable_prefix_caching=True, tensor_parallel_size=tensor, scheduling_policy="priority",
        distributed_executor_backend="mp" if tensor > 1 else "uni",
        kv_transfer_config=kv_transfer,
    ).create_engine_config()
    let_resume(config)
    client = AsyncLLM(config, Executor.get_class(config), log_stats=True, log_requests=False)
    await prepare_workers(client)
    numbers = iter(range(1000))
    async def ask(prompt):
        params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
        inputs = tokens_input(list(prompt), cache_salt="tenant:t")
        async for output in client.generate(inputs, params, f"q{next(numbers)}"):
            pass
        return list(output.outputs[0].token_ids), output.num_cached_tokens
    out = [[await ask(prompt) for prompt in PROMPTS] for _ in range(rounds)]
    out.append(await asyncio.gather(*(ask(prompt) for prompt in PROMPTS)))
    client.shutdown()
    return out

async def main(model):
    folder, before = tempfile.mkdtemp(prefix="weir-tiers-"), shared_memory()
    (one, _) = await answers(model, 1, None, 1)
    two = await answers(model, 2, transfer(model, folder), 2)
    right = [tokens for tokens, _ in one]
    out = {"same": [[tokens for tokens, _ in answered] == right for answered in two],
           "cached": [sum(count for _, count in answered) / sum(map(len, PROMPTS))
                      for answered in two],
           "files": len(list(Path(folder).glob("**/*.kv"))),
           "left": sorted(shared_memory() - before)}
    print("RESULT" + json.dumps(out), flush=True)

asyncio.run(main(sys.argv[1]))
os._exit(0)
"""


@pytest.fixture(scope="module")
def result(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT)


def test_two_processes_load_what_they_stored(result: dict[str, Any]) -> None:
    assert result["same"] == [True, True, True]
    first, second, crowd = result["cached"]
    assert first == 0
    assert min(second, crowd) > 0.9


def test_they_share_one_file_and_leave_nothing_in_shared_memory(result: dict[str, Any]) -> None:
    assert result["files"] == 1
    assert result["left"] == []
