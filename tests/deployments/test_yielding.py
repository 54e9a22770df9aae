"""vLLM's scheduler with prompts that give way, in a real engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from deployments import wire
from deployments.engine import EngineChild
from deployments.yielding import let_yield

async def run(model, yields, asynchronous):
    config = AsyncEngineArgs(
        model=model, dtype="float32", max_model_len=2048, block_size=32, max_num_seqs=8,
        kv_cache_memory_bytes=64 << 20, enforce_eager=True, enable_prefix_caching=False,
        distributed_executor_backend="uni", scheduling_policy="priority",
        max_num_batched_tokens=64, async_scheduling=asynchronous,
    ).create_engine_config()
    assert not yields or let_yield(config)
    child = EngineChild(config, lambda code: None)
    child.start()
    client, generator, recorders = generator_of(config, child)
    order, tokens, ended = [], {}, {}

    async def submit(number, name, prompt, count, rank, started=False):
        ended[name], first = asyncio.Event(), asyncio.Event()
        def put(message):
            if isinstance(message, wire.Started | wire.Used):
                return
            if name not in tokens:
                order.append(name)
            tokens.setdefault(name, []).extend(message.tokens)
            first.set()
            if not isinstance(message, wire.Chunk):
                ended[name].set()
        sampling = wire.Sampling(max_tokens=count, temperature=0.0, ignore_eos=True)
        await generator.submit(
            wire.Submit(number, name, prompt, sampling, priority=rank << 52), put)
        if started:
            await asyncio.wait_for(first.wait(), 60)

    # One of later rank that decodes, one of later rank with a long prompt, and urgent ones.
    await submit(1, "decodes", list(range(10, 50)), 120, 4, started=True)
    await submit(2, "long", [7 + i % 900 for i in range(1900)], 4, 4)
    for _ in range(200):
        if recorders[0].load.running == 2:
            break
        await asyncio.sleep(0.002)
    await submit(3, "urgent", [11 + i % 700 for i in range(150)], 6, 0)
    await submit(4, "urgent too", [13 + i % 600 for i in range(100)], 6, 0)
    for event in ended.values():
        await asyncio.wait_for(event.wait(), 60)
    client.shutdown()
    child.stop()
    return {"order": order, "tokens": tokens}

async def main(model):
    print("RESULT" + json.dumps({
        "stock": await run(model, False, True),
        "yielding": await run(model, True, True),
        "yielding, one step at a time": await run(model, True, False),
    }), flush=True)

asyncio.run(main(sys.argv[1]))
os._exit(0)
"""


def test_a_real_engine_interrupts_a_prompt_and_answers_alike(
    with_teacher: Callable[[str], dict[str, Any]],
) -> None:
    """All get the tokens that they get without interruption; only who is first changes."""
    found = with_teacher(_SCRIPT)
    assert found["stock"]["order"] == ["decodes", "long", "urgent", "urgent too"]
    for name in ("yielding", "yielding, one step at a time"):
        assert found[name]["order"] == ["decodes", "urgent", "urgent too", "long"], name
        assert found[name]["tokens"] == found["stock"]["tokens"], name
        assert len(found[name]["tokens"]["decodes"]) == 120
