"""What a replica tells of its engine's work is what vLLM's own counters have, to the token: of
requests that end, that a stop string ends, that are broken off at any time, and that go on here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, sys, time
from vllm.engine.arg_utils import AsyncEngineArgs
from deployments import wire
from deployments.engine import EngineChild
from deployments.resuming import let_resume, prepare_workers
from deployments.yielding import let_yield

def count_like_prometheus(sums):
    # What vLLM's PrometheusStatLogger adds to vllm:prompt_tokens, to vllm:prompt_tokens_cached and
    # to vllm:generation_tokens.
    record = LoadRecorder.record
    def counting(self, scheduler_stats, iteration_stats, *args, **kwargs):
        if iteration_stats is not None:
            sums["prompt"] += iteration_stats.num_prompt_tokens
            sums["cached"] += iteration_stats.prompt_token_stats.cached_tokens
            sums["output"] += iteration_stats.num_generation_tokens
        return record(self, scheduler_stats, iteration_stats, *args, **kwargs)
    LoadRecorder.record = counting
    return record

async def run(model, asynchronous):
    config = AsyncEngineArgs(
        model=model, dtype="float32", max_model_len=1024, block_size=32, max_num_seqs=16,
        kv_cache_memory_bytes=64 << 20, enforce_eager=True, enable_prefix_caching=True,
        distributed_executor_backend="uni", scheduling_policy="priority",
        max_num_batched_tokens=64, async_scheduling=asynchronous,
    ).create_engine_config()
    assert let_yield(config) and let_resume(config)
    child = EngineChild(config, lambda code: None)
    child.start()
    sums = {"prompt": 0, "cached": 0, "output": 0}
    uncounted = count_like_prometheus(sums)
    client, plain, recorders = generator_of(config, child)
    await prepare_workers(client)
    generator = VllmGenerator(client, plain.load, resumes=True)
    used, took = {}, {}

    async def ask(name, prompt, leave_after=None, resume=None, **sampling):
        ended, first, count = asyncio.Event(), asyncio.Event(), 0
        def put(message):
            nonlocal count
            if isinstance(message, wire.Used):
                used[name] = [message.prompt_tokens, message.cached_tokens, message.output_tokens]
                took[name] = [message.prefill_s, message.decode_s]
                return
            count += len(getattr(message, "tokens", ()))
            if leave_after is not None and count >= leave_after:
                first.set()
            if isinstance(message, (wire.Done, wire.Failed)):
                ended.set()
                first.set()
        wanted = wire.Sampling(**{"temperature": 0.0, "ignore_eos": True, **sampling})
        number = len(used) + len(took) + 1
        abort = await generator.submit(
            wire.Submit(number, name, prompt, wanted, resume=resume), put)
        if leave_after is not None:
            if leave_after:
                await asyncio.wait_for(first.wait(), 60)
            await abort()
        else:
            await asyncio.wait_for(ended.wait(), 60)

    def text(seed, size):
        return [7 + (i * seed) % 900 for i in range(size)]

    began = time.monotonic()
    answer = client.renderer.tokenizer
    ask_text = answer.encode("<s><|user|>How do I connect a sensor?<|end|><|assistant|>")
    await ask("alone", text(3, 40), max_tokens=20)
    await ask("again", text(3, 40), max_tokens=20)
    await ask("longer than a step", text(5, 300), max_tokens=5)
    await asyncio.gather(
        *(ask(f"many {i}", text(11 + i, 50 + i), max_tokens=10 + i) for i in range(6)),
        ask("stopped", ask_text, max_tokens=40, stop=["e"]),
        ask("resumed", text(17, 70), max_tokens=30, resume=wire.Resume([9, 10, 11], 0)),
        ask("left at once", text(19, 200), leave_after=0, max_tokens=20),
        ask("left early", text(23, 60), leave_after=1, max_tokens=200),
        ask("left later", text(29, 60), leave_after=7, max_tokens=200),
    )
    await asyncio.sleep(0.5)
    wall = time.monotonic() - began
    client.shutdown()
    child.stop()
    LoadRecorder.record = uncounted
    return {"used": used, "took": took, "vllm": sums, "wall": wall}

async def main(model):
    print("RESULT" + json.dumps({"steps ahead": await run(model, True),
                                 "one step at a time": await run(model, False)}), flush=True)

asyncio.run(main(sys.argv[1]))
os._exit(0)
"""


@pytest.fixture(scope="module")
def found(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT)


MODES = pytest.mark.parametrize("mode", ["steps ahead", "one step at a time"])


@MODES
def test_the_replicas_counts_are_vllms_own(found: dict[str, Any], mode: str) -> None:
    told, own = found[mode]["used"], found[mode]["vllm"]
    sums = [sum(counts[place] for counts in told.values()) for place in range(3)]
    assert sums == [own["prompt"], own["cached"], own["output"]]
    assert told["left at once"][2] == 0
    assert told["left early"][2] >= 1
    assert told["left later"][2] >= 7
    assert told["again"][1] > 0
    assert len(told) == 14


@MODES
def test_the_work_told_is_a_part_of_the_time_that_passed(found: dict[str, Any], mode: str) -> None:
    took, wall_s = found[mode]["took"], found[mode]["wall"]
    for name, (prefill_s, decode_s) in took.items():
        if name.startswith("left"):
            assert decode_s < 0, name  # the engine core tells it with the last output only
            continue
        assert prefill_s > 0, name
        assert decode_s > 0, name
    ended = [work for name, work in took.items() if not name.startswith("left")]
    assert sum(prefill_s + decode_s for prefill_s, decode_s in ended) < wall_s
    # 300 tokens in steps of 64 beside nothing else, and 40 of which 32 were cached.
    assert took["longer than a step"][0] > took["again"][0]
