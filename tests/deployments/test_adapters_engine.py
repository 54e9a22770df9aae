"""Base and adapters in one batch of a real engine: nobody gets anybody else's weights.

vLLM on the CPU reads a request without an adapter as one of its last slot: see
:mod:`deployments.adapters`. The test has more adapters than slots, so that every slot that may be
used is used, again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, sys, tempfile
from pathlib import Path
import torch
from safetensors.torch import save_file
from vllm.engine.arg_utils import AsyncEngineArgs
from deployments import wire
from deployments.adapters import AdapterSlots, engine_arguments
from deployments.engine import EngineChild
from deployments.vllm_generator import VllmGenerator
from router.hashing import VllmHasher, block_key
from weir.adapters import inspect_adapter
from weir.errors import WeirError

SLOTS = 2

def make_adapter(folder, seed):
    folder.mkdir()
    torch.manual_seed(seed)
    tensors = {}
    for layer in range(5):
        for name, out, into in (("self_attn.q_proj", 256, 256), ("mlp.down_proj", 256, 704)):
            at = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{at}.lora_A.weight"] = torch.randn(4, into) / into ** 0.5
            tensors[f"{at}.lora_B.weight"] = torch.randn(out, 4)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none",
        "target_modules": ["q_proj", "down_proj"]}))

async def main(model):
    root = Path(tempfile.mkdtemp())
    for seed in range(4):
        make_adapter(root / f"a{seed}", seed)
    files = [inspect_adapter(str(root / f"a{seed}")) for seed in range(4)]
    arguments = engine_arguments(files, SLOTS)
    config = AsyncEngineArgs(
        model=model, dtype="float32", max_model_len=256, block_size=32, max_num_seqs=16,
        kv_cache_memory_bytes=32 << 20, enforce_eager=True, enable_prefix_caching=True,
        distributed_executor_backend="uni", **arguments, **events(),
    ).create_engine_config()
    child = EngineChild(config, lambda code: None)
    child.start()
    client, plain, recorders = generator_of(config, child)
    slots = AdapterSlots(client, SLOTS)
    generator = VllmGenerator(client, plain.load, slots=slots)
    numbers = iter(range(1, 10_000))

    async def ask(adapter, prompt=0, wait=True, count=12):
        number, got, ended = next(numbers), [], asyncio.Event()
        def put(message):
            got.append(message)
            if isinstance(message, (wire.Done, wire.Failed)):
                ended.set()
        key = None
        if adapter is not None:
            key = wire.Adapter(f"a{adapter}@1", str(root / f"a{adapter}"), wait)
        sampling = wire.Sampling(max_tokens=count, temperature=0.0, ignore_eos=True)
        ids = [30 + (7 * i + 11 * prompt) % 900 for i in range(70)]
        try:
            await generator.submit(wire.Submit(
                number, f"r{number}", ids, sampling, adapter=key, cache_salt="tenant:t"), put)
        except WeirError as error:
            return error.status
        await asyncio.wait_for(ended.wait(), 60)
        return [t for m in got if isinstance(m, (wire.Chunk, wire.Done)) for t in m.tokens]

    out = {"max_loras": config.lora_config.max_loras, "rank": config.lora_config.max_lora_rank}
    cases = [(adapter, prompt) for prompt in range(3) for adapter in (None, 0, 1, 2, 3)]
    alone = [await ask(*case) for case in cases]
    rounds = [await asyncio.gather(*(ask(*case) for case in cases)) for _ in range(3)]
    out["different"] = len({tuple(tokens) for tokens in alone[:5]})
    out["mixed_up"] = sum(a != b for batch in rounds for a, b in zip(alone, batch))
    out["loaded"], out["loads"] = len(await client.list_loras()), slots.loads
    out["most"] = len(slots.told().loaded)
    long = [asyncio.create_task(ask(adapter, 5, count=100)) for adapter in (0, 1)]
    while len(slots.told().busy) < 2:
        await asyncio.sleep(0.01)
    out["busy"] = await ask(2, wait=False)
    waited = await ask(2)
    out["waited"] = waited == alone[3]
    await asyncio.gather(*long)
    out["missing"] = await ask(9)
    # One adapter and the base decode while other adapters come and go in the slot beside: vLLM
    # renewed its table of slots only when the batch changed (vllm#47724).
    steady = [await ask(adapter, 6, count=100) for adapter in (0, None)]
    before, running = slots.loads, [
        asyncio.create_task(ask(adapter, 6, count=100)) for adapter in (0, None)]
    churned = 0
    while not all(task.done() for task in running):
        key = 1 + churned % 3
        await slots.hold(wire.Adapter(f"a{key}@1", str(root / f"a{key}")))
        slots.release(f"a{key}@1")
        churned += 1
        await asyncio.sleep(0.02)
    out["churn"] = slots.loads - before
    out["unmoved"] = [await task for task in running] == steady
    out["after"] = (await ask(1)) == alone[2]
    out["in_use"] = slots.told().busy
    out["events"] = await published()
    hasher = VllmHasher(32)
    ids = [30 + 7 * i % 900 for i in range(70)]
    keyed = (None, "a0@1", "a1@1")
    out["keys"] = {str(a): list(hasher.keys(ids, "tenant:t", a)) for a in keyed}
    print("RESULT" + json.dumps(out), flush=True)

ENDPOINT = f"ipc://{tempfile.mkdtemp()}/events"

def events():
    from vllm.config import KVEventsConfig
    return {"kv_events_config": KVEventsConfig(
        enable_kv_cache_events=True, publisher="zmq", endpoint=ENDPOINT,
        replay_endpoint=ENDPOINT + "-replay", topic="kv")}

async def published():
    import msgspec, zmq
    from zmq.asyncio import Context
    socket = Context.instance().socket(zmq.DEALER)
    socket.connect(ENDPOINT + "-replay")
    await socket.send_multipart([b"", (0).to_bytes(8, "big")])
    found = set()
    while True:
        frames = await asyncio.wait_for(socket.recv_multipart(), 20)
        if frames[-1] == b"":
            return sorted(found)
        for event in msgspec.msgpack.decode(frames[-1])[1]:
            if isinstance(event, dict) and event["type"] == "BlockStored":
                found.update(block_key(h) for h in event["block_hashes"])

asyncio.run(main(sys.argv[1]))
os._exit(0)
"""


@pytest.fixture(scope="module")
def result(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT)


def test_one_slot_more_than_is_used(result: dict[str, Any]) -> None:
    assert (result["max_loras"], result["rank"]) == (3, 8)
    assert result["most"] == result["loaded"] == 2


def test_base_and_adapters_answer_in_a_batch_as_they_do_alone(result: dict[str, Any]) -> None:
    assert result["different"] == 5
    assert result["mixed_up"] == 0
    assert result["loads"] > 4


def test_a_request_waits_for_a_slot_or_is_told_at_once(result: dict[str, Any]) -> None:
    assert result["busy"] == 423
    assert result["waited"]


def test_a_missing_adapter_costs_no_slot(result: dict[str, Any]) -> None:
    assert result["missing"] == 404
    assert result["after"]
    assert result["in_use"] == []


def test_an_answer_keeps_its_adapter_while_others_come_and_go(result: dict[str, Any]) -> None:
    assert result["churn"] >= 5
    assert result["unmoved"]


def test_block_keys_are_the_engines(result: dict[str, Any]) -> None:
    keys = [key for own in result["keys"].values() for key in own]
    assert len(set(keys)) == len(keys) == 6
    assert set(keys) <= set(result["events"])
