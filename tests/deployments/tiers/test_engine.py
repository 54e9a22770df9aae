"""Real engines with KV tiers: answers as without, whatever is evicted, killed or damaged.

The engine's cache holds 40 blocks, the prompts have 96 together. One engine without tiers says what
is right; three in a row share a disk, each of them ended with SIGKILL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, random, sys, tempfile
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from prometheus_client import REGISTRY
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.v1.kv_offload.base import LookupResult, ReqContext, ScheduleEndContext, make_offload_key
from deployments.engine import EngineChild
from deployments.kv_feed import open_feed
from deployments.pools import pools_of
from deployments.resuming import RESUMED, let_resume, prepare_workers
from deployments.tiers.disk_store import DiskStore
from deployments.tiers.disk_tier import DiskTier
from deployments.tiers.figures import tier_figures
from deployments.tiers.manager import MemoryTier, TieredManager
from deployments.tiers.slot_file import Layout, open_slot_file
from deployments.yielding import let_yield
import torch
from safetensors.torch import save_file
from router.hashing import VllmHasher
from router.kv_events import EventStream
from router.kv_subscriber import KvEndpoints, KvEventSubscriber
from router.prefix_index import PrefixIndex
from weir.settings import parse_settings

BLOCK, BLOCK_BYTES = 32, 163840
CACHE, MEMORY, DISK = 40 * BLOCK_BYTES, 64 * BLOCK_BYTES, 200 * BLOCK_BYTES
RNG = random.Random(5)
PROMPTS = [[RNG.randrange(3, 2000) for _ in range(8 * BLOCK + 5)] for _ in range(12)]

def make_adapter(folder, seed):
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    tensors = {}
    for layer in range(5):
        at = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{at}.lora_A.weight"] = torch.randn(4, 256) / 16
        tensors[f"{at}.lora_B.weight"] = torch.randn(256, 4)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none",
        "target_modules": ["q_proj"]}))
    return LoRARequest(folder.name, seed + 1, str(folder))

def transfer(model, folder):
    tiers = {"memory_bytes": MEMORY, "disk_folder": str(folder), "disk_bytes": DISK}
    engine = {"mode": "forked", "kv_tiers": tiers}
    settings = parse_settings({"models": [{"name": "m", "source": model, "engine": engine}]}, "t")
    return pools_of(settings.models[0])[0].kv_transfer()

class Recorder(LoadRecorder):
    def __init__(self, blocks, tiers):
        super().__init__(blocks, None, tiers)
        self.fetched, self.figures = 0, {}
    def record(self, scheduler_stats, iteration_stats, *more, **named):
        super().record(scheduler_stats, iteration_stats, *more, **named)
        if scheduler_stats is None:
            return
        if (stats := scheduler_stats.connector_prefix_cache_stats) is not None:
            self.fetched += stats.hits
        told = scheduler_stats.kv_connector_stats or {"types": {}, "data": {}}
        for name, values in told["data"].items():
            for labels, value in values.items():
                key = " ".join([name, *labels])
                counts = told["types"][name] == "counter"
                if told["types"][name] != "histogram":
                    self.figures[key] = value + (self.figures.get(key, 0) if counts else 0)

class Engine:
    async def start(self, model, kv_transfer):
        # One process has one engine, elsewhere.
        for collector in list(REGISTRY._collector_to_names):
            if getattr(collector, "_name", "").startswith("weir_kv_tier"):
                REGISTRY.unregister(collector)
        self.feed = feed = open_feed("127.0.0.1")
        config = AsyncEngineArgs(
            model=model, dtype="float32", max_model_len=512, block_size=BLOCK, max_num_seqs=8,
            kv_cache_memory_bytes=CACHE, enforce_eager=True, enable_prefix_caching=True,
            scheduling_policy="priority", distributed_executor_backend="uni",
            enable_lora=True, max_loras=3, max_lora_rank=8, kv_transfer_config=kv_transfer,
            kv_events_config=feed.engine_argument(),
        ).create_engine_config()
        let_yield(config)
        let_resume(config)
        self.child = EngineChild(config, lambda code: None)
        self.child.start()
        recorders = []
        def factory(config, index):
            recorders.append(Recorder(config.cache_config.num_gpu_blocks, tier_figures(config)))
            return recorders[-1]
        self.client = AsyncLLM(
            config, Executor.get_class(config), log_stats=True, log_requests=False,
            stat_loggers=[factory], client_addresses=self.child.client_addresses())
        await prepare_workers(self.client)
        self.recorder = recorders[0]
        self.index = PrefixIndex()
        self.index.add_replica("r", 1000)
        self.stream = EventStream(self.index, "r", BLOCK)
        endpoints = KvEndpoints(feed.events, feed.replay)
        following = KvEventSubscriber(self.stream, endpoints).run()
        self.following = asyncio.create_task(following)
        self.asked = 0
        return self

    async def ask(self, prompt, salt="tenant:a", lora=None, **more):
        self.asked += 1
        params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, **more)
        inputs = tokens_input(list(prompt), cache_salt=salt)
        async for output in self.client.generate(
            inputs, params, f"q{self.asked}", lora_request=lora):
            pass
        return list(output.outputs[0].token_ids), output.num_cached_tokens

    async def ask_all(self, **more):
        return [await self.ask(prompt, **more) for prompt in PROMPTS]

    async def settle(self):
        # Blocks are stored in the step behind the one that computed them, and written by a thread.
        for _ in range(20):
            await self.ask([5, 6, 7], salt="tenant:other")
            await asyncio.sleep(0.05)

    def told(self, name, *labels):
        return self.recorder.figures.get(" ".join([name, *labels]), 0)

    def kill(self):
        os.kill(self.child.pid, 9)
        self.following.cancel()

def shared_memory():
    return {path.name for path in Path("/dev/shm").iterdir() if "vllm_offload" in path.name}

def texts(answers):
    return [tokens for tokens, _ in answers]

def cached(answers):
    return sum(count for _, count in answers) / sum(map(len, PROMPTS))

def tier_use(engine):
    use = engine.recorder.load.tiers
    return [use.memory_bytes, use.memory_limit_bytes, use.disk_bytes, use.disk_limit_bytes,
            use.memory_load_s, use.disk_load_s]

def promote(blocks, slots):
    # A prompt that is on disk, and a memory tier that is smaller: as vLLM's scheduler asks.
    class Region:
        def create_kv_memoryview(self):
            return memoryview(np.zeros((slots, 4096), dtype=np.int8))
    events = SimpleNamespace(enable_kv_cache_events=True)
    file = open_slot_file(Path(tempfile.mkdtemp()), Layout(bytes(32), 4096, 2 * blocks))
    store = DiskStore(file, lambda: 0.0)
    keys = [make_offload_key(bytes([n]) * 32, 0) for n in range(1, blocks + 1)]
    for key in keys:
        store.store(key, memoryview(key[:1] * 4096))
    memory = MemoryTier(num_blocks=slots, mmap_region=Region(), enable_events=True)
    view = memory.get_kv_memoryview()
    disk = DiskTier(SimpleNamespace(kv_events_config=events), view, store, slots)
    manager = TieredManager(memory, disk, slots, 4096)
    asking = ReqContext("q")
    manager.on_new_request(asking)
    for step in range(1, 50):
        hits, pending = 0, False
        for key in keys:
            result = manager.lookup(key, asking)
            if result is LookupResult.MISS:
                break
            hits += 1
            pending |= result is not LookupResult.HIT
        manager.touch(keys, asking)
        manager.on_schedule_end(ScheduleEndContext([], []))
        if not pending:
            break
        disk.drain_jobs()
    rows = manager.prepare_load(keys[:hits], asking).block_ids if hits else []
    right = [bytes(view.cast("B")[row * 4096:row * 4096 + 4096]) == key[:1] * 4096
             for row, key in zip(rows, keys)]
    told = [(len(e.keys), e.medium.value, e.removed) for e in manager.take_events()]
    return [step, hits, right, told]

async def main(model):
    root = Path(tempfile.mkdtemp(prefix="weir-tiers-"))
    folder = root / "kv"
    adapters = [make_adapter(root / f"a{seed}", seed) for seed in range(2)]
    out = {"promoted": [promote(12, 8), promote(3, 8)]}

    plain = await Engine().start(model, None)
    right = texts(await plain.ask_all())
    again = await plain.ask_all()
    out["plain"] = [texts(again) == right, cached(again)]
    adapted = [[(await plain.ask(p, lora=lora))[0] for p in PROMPTS[:3]] for lora in adapters]
    out["adapters differ"] = adapted[0] != adapted[1] != right[:3]
    plain.kill()

    before = shared_memory()
    one = await Engine().start(model, transfer(model, folder))
    out["left in shared memory"] = sorted(shared_memory() - before)
    first = await one.ask_all()
    second = await one.ask_all()
    out["second"] = [texts(first) == right, texts(second) == right, cached(first), cached(second)]
    crowd = await asyncio.gather(*(one.ask(prompt) for prompt in PROMPTS))
    out["crowd"] = [texts(crowd) == right, cached(crowd)]
    begun = {RESUMED: right[0][:2]}  # another replica generated that much, and was lost
    resumed = await one.ask(PROMPTS[0], extra_args=begun)
    out["resumed"] = [right[0][:2] + resumed[0] == right[0], resumed[1]]
    other = await one.ask(PROMPTS[0], salt="tenant:b")
    out["other tenant"] = [other[0] == right[0], other[1]]
    await one.ask_all()  # the other tenant's blocks, and the adapters', come and go
    mixed = [[await one.ask(p, lora=lora) for p in PROMPTS[:3]] for lora in adapters]
    out["adapters"] = [[texts(a) for a in mixed] == adapted, [c for a in mixed for _, c in a]]
    await one.ask_all()
    back = [[await one.ask(p, lora=lora) for p in PROMPTS[:3]] for lora in adapters]
    out["adapters again"] = [[texts(a) for a in back] == adapted,
                             sum(c for a in back for _, c in a)]
    await one.settle()
    out["use"] = tier_use(one)
    out["fetched"] = one.recorder.fetched
    out["stored"] = [one.told("weir_kv_tier_stored_blocks", tier) for tier in ("memory", "disk")]
    out["loaded"] = [one.told("weir_kv_tier_loaded_blocks", tier) for tier in ("memory", "disk")]
    out["evicted"] = one.told("weir_kv_tier_evicted_blocks", "memory")
    out["blocks"] = [one.told("weir_kv_tier_blocks", tier) for tier in ("memory", "disk")]
    keys = VllmHasher(BLOCK).keys(PROMPTS[1], "tenant:a")
    out["beyond"] = list(one.index.tiers.beyond(keys, one.index.lookup(keys, 0.0)).get("r", ()))
    out["on device"] = one.index.lookup(keys, 0.0).get("r", 0)
    out["known"] = [one.index.tiers.blocks("r"), one.index.blocks("r")]
    one.kill()

    (path,) = folder.glob("**/*.kv")
    out["file"] = [path.stat().st_size, oct(path.stat().st_mode)[-3:],
                   oct(path.parent.stat().st_mode)[-3:]]
    two = await Engine().start(model, transfer(model, folder))
    third = await two.ask_all()
    await two.settle()
    out["after kill"] = [texts(third) == right, cached(third)]
    out["known after kill"] = two.index.tiers.blocks("r")
    out["adapters after kill"] = [
        [(await two.ask(p, lora=lora))[0] for p in PROMPTS[:3]] for lora in adapters] == adapted
    two.kill()

    size = path.stat().st_size
    with path.open("r+b") as file:
        for at in range(size - 1000, size // 3, -2 * BLOCK_BYTES):
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 1]))
    os.truncate(path, size - 20 * BLOCK_BYTES)
    three = await Engine().start(model, transfer(model, folder))
    fourth = await three.ask_all()
    await three.settle()
    out["damaged"] = [texts(fourth) == right, cached(fourth),
                      three.told("weir_kv_tier_failed_blocks", "disk", "damaged")]
    again = await asyncio.gather(*(three.ask(prompt) for prompt in PROMPTS))
    out["damaged again"] = [texts(again) == right, cached(again)]
    three.kill()
    out["files"] = len(list(folder.glob("**/*.kv")))
    print("RESULT" + json.dumps(out), flush=True)

asyncio.run(main(sys.argv[1]))
os._exit(0)
"""

MEMORY_BYTES, DISK_BYTES = 64 * 163840, 200 * 163840


@pytest.fixture(scope="module")
def result(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT)


def test_a_prompt_longer_than_the_memory_tier_starts_all_the_same(result: dict[str, Any]) -> None:
    long, short = result["promoted"]
    assert long[1:3] == [4, [True] * 4]
    assert short[1:3] == [3, [True] * 3]
    assert max(long[0], short[0]) < 5
    assert [3, "CPU", False] in short[3]
    assert [3, "STORAGE", False] in short[3]


def test_without_tiers_a_prompt_that_comes_round_is_gone(result: dict[str, Any]) -> None:
    same, cached = result["plain"]
    assert same
    assert cached < 0.1


def test_with_tiers_it_is_there_and_the_answers_are_the_same(result: dict[str, Any]) -> None:
    first_same, second_same, first_cached, second_cached = result["second"]
    assert first_same
    assert second_same
    assert first_cached == 0
    assert second_cached > 0.9
    same, cached = result["crowd"]
    assert same
    assert cached > 0.9
    assert result["fetched"] > 96 * 32


def test_a_stream_that_another_replica_began_goes_on_from_tiers(result: dict[str, Any]) -> None:
    same, cached = result["resumed"]
    assert same
    assert cached == 8 * 32


def test_another_tenants_blocks_are_not_there(result: dict[str, Any]) -> None:
    assert result["other tenant"] == [True, 0]


def test_an_adapters_blocks_are_its_own(result: dict[str, Any]) -> None:
    assert result["adapters differ"]
    same, cached = result["adapters"]
    assert same
    assert cached == [0] * 6
    same_again, cached_again = result["adapters again"]
    assert same_again
    assert cached_again > 5 * 8 * 32
    assert result["adapters after kill"]


def test_the_tiers_are_bounded_in_bytes(result: dict[str, Any]) -> None:
    memory, memory_limit, disk, disk_limit, memory_load_s, disk_load_s = result["use"]
    assert 0 < memory <= memory_limit <= MEMORY_BYTES
    assert 0 < disk <= disk_limit <= DISK_BYTES
    assert result["file"] == [disk_limit, "600", "700"]
    assert memory_load_s > 0
    assert disk_load_s > 0
    assert result["left in shared memory"] == []


def test_figures_count_blocks(result: dict[str, Any]) -> None:
    in_memory, on_disk = result["blocks"]
    assert in_memory == 64
    assert 96 <= on_disk <= 200
    assert min(result["stored"]) >= 96
    assert min(result["loaded"]) > 0
    assert result["evicted"] > 0


def test_events_tell_where_blocks_are(result: dict[str, Any]) -> None:
    in_tiers, on_device = result["known"]
    assert in_tiers >= 96
    assert on_device <= 40
    assert result["on device"] + sum(result["beyond"]) == 8


def test_a_killed_engines_blocks_outlive_it(result: dict[str, Any]) -> None:
    same, cached = result["after kill"]
    assert same
    assert cached > 0.9
    assert result["known after kill"] >= 96
    assert result["files"] == 1


def test_damaged_blocks_are_computed_again(result: dict[str, Any]) -> None:
    same, cached, failed = result["damaged"]
    assert same
    assert 0 < cached < 0.9
    assert failed > 0
    assert result["damaged again"][0]
    assert result["damaged again"][1] > 0.9
