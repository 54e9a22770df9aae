"""vLLM's inner parts that weir leans on: this fails loudly when an upgrade moves them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, signal, sys
from pathlib import Path
from vllm.engine.arg_utils import AsyncEngineArgs
from deployments import wire
from deployments.engine import EngineChild, EngineStartError
from weir.errors import BadRequestError

async def main(model):
    config = AsyncEngineArgs(
        model=model, dtype="float32", max_model_len=512, block_size=32, max_num_seqs=8,
        kv_cache_memory_bytes=32 << 20, enforce_eager=True, enable_prefix_caching=True,
        distributed_executor_backend="uni",
    ).create_engine_config()
    deaths = []
    child = EngineChild(config, deaths.append)
    child.start()
    threads = [p.read_text().strip() for p in Path(f"/proc/{child.pid}/task").glob("*/comm")]
    client, generator, recorders = generator_of(config, child)
    out = {"blocks": config.cache_config.num_gpu_blocks}
    out["threads"] = threads
    started = []

    async def run(number, prompt, count, stop_after=None):
        got, ended = [], asyncio.Event()
        def put(message):
            if isinstance(message, wire.Used):
                return
            if isinstance(message, wire.Started):
                started.append(number)
                return
            got.append(message)
            if not isinstance(message, wire.Chunk) or len(got) == stop_after:
                ended.set()
        sampling = wire.Sampling(max_tokens=count, temperature=0.0, ignore_eos=True)
        abort = await generator.submit(wire.Submit(number, f"r{number}", prompt, sampling), put)
        await asyncio.wait_for(ended.wait(), 60)
        return got, abort

    prompt = list(range(10, 110))
    first, _ = await run(1, prompt, 12)
    again, _ = await run(2, prompt, 12)
    both = await asyncio.gather(run(3, prompt, 5), run(4, prompt[:50], 7))
    out["tokens"] = [[t for m in got for t in m.tokens] for got, _ in (
        (first, 0), (again, 0), *both)]
    out["text"] = ["".join(m.text for m in got) for got in (first, again)]
    out["done"] = [got[-1].__class__.__name__ for got in (first, again)]
    out["counts"] = [first[-1].prompt_tokens, first[-1].output_tokens]
    out["cached"] = [first[-1].cached_tokens, again[-1].cached_tokens]
    _, abort = await run(5, prompt, 400, stop_after=3)
    out["running"] = recorders[0].load.running
    await abort()
    for _ in range(100):
        if client.output_processor.get_num_unfinished_requests() == 0:
            break
        await asyncio.sleep(0.05)
    out["unfinished"] = client.output_processor.get_num_unfinished_requests()
    out["started"] = list(started)
    out["steps"] = [recorders[0].load.steps]
    _, abort = await run(6, prompt, 400, stop_after=3)
    os.kill(child.pid, signal.SIGSTOP)
    await asyncio.sleep(0.2)  # what was on its way has arrived
    out["steps"].append(recorders[0].load.steps)
    await asyncio.sleep(0.5)
    out["steps"].append(recorders[0].load.steps)
    os.kill(child.pid, signal.SIGCONT)
    await asyncio.sleep(0.5)
    out["steps"].append(recorders[0].load.steps)
    await abort()
    try:
        await run(7, list(range(600)), 5)
    except BadRequestError as refused:
        out["refused"] = str(refused)
    os.kill(child.pid, 9)
    for _ in range(100):
        if deaths:
            break
        await asyncio.sleep(0.05)
    out["deaths"] = deaths
    child.stop()  # what is gone already is no error
    config.model_config.model += "-that-is-not-there"
    never = EngineChild(config, deaths.append)
    try:
        never.start()
    except EngineStartError as failed:
        out["failed"] = str(failed)
    never.stop()
    print("RESULT" + json.dumps(out), flush=True)

asyncio.run(main(sys.argv[1]))
os._exit(0)
"""


@pytest.fixture(scope="module")
def result(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, object]:
    return with_teacher(_SCRIPT)


def test_the_forked_engine_generates(result: dict[str, object]) -> None:
    assert result["done"] == ["Done", "Done"]
    assert [len(t) for t in result["tokens"]] == [12, 12, 5, 7]  # type: ignore[attr-defined]
    assert result["counts"] == [100, 12]


def test_an_idle_engine_has_one_thread_of_gloo(result: dict[str, object]) -> None:
    assert result["threads"].count("gloo_tcp_loop") == 1  # type: ignore[attr-defined]


def test_it_generates_the_same_alone_and_in_a_batch(result: dict[str, object]) -> None:
    first, again, batched, _ = result["tokens"]  # type: ignore[misc]
    assert first == again
    assert batched == first[:5]
    assert result["text"][0] == result["text"][1]  # type: ignore[index]


def test_the_second_time_the_prefix_is_cached(result: dict[str, object]) -> None:
    assert result["cached"] == [0, 96]


def test_sizes_and_load_are_reported(result: dict[str, object]) -> None:
    assert int(str(result["blocks"])) > 10
    assert result["running"] == 1


def test_an_abort_frees_the_request(result: dict[str, object]) -> None:
    assert result["unfinished"] == 0


def test_each_stream_is_told_once_that_its_prompt_is_prefilled(result: dict[str, Any]) -> None:
    assert sorted(result["started"]) == [1, 2, 3, 4, 5]


def test_the_steps_stand_still_while_the_engine_hangs(result: dict[str, Any]) -> None:
    before, stopped, later, going_on = result["steps"]
    assert 0 < before < stopped == later < going_on


def test_a_prompt_that_does_not_fit_is_refused(result: dict[str, object]) -> None:
    assert "512" in str(result.get("refused"))


def test_an_engine_that_dies_is_noticed(result: dict[str, object]) -> None:
    assert result["deaths"] == [-9]


def test_an_engine_that_cannot_be_built_says_why(result: dict[str, object]) -> None:
    assert "-that-is-not-there" in str(result.get("failed"))
