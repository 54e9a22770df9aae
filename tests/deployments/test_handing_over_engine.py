"""Real engines that hand KV blocks over by NIXL, behind the real gateway: token for token what one
engine alone answers, whatever is lost on the way, and nothing stays allocated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, socket, sys
from pathlib import Path
from vllm.engine.arg_utils import AsyncEngineArgs
from deployments import wire
from deployments.chats import ChatFormat
from deployments.engine import EngineChild
from deployments.gateway.prompts import PromptEncoder
from deployments.pools import pools_of
from deployments.resuming import let_resume, prepare_workers
from deployments.testing.world import KEY, http_world
from deployments.yielding import let_yield
from weir.samples import requests
from weir.settings import parse_settings
from weir.tenancy import hash_key

def settings(rule):
    pools = [{"name": n, "role": r, "engine": {"args": {"kv_transfer_config":
             {"kv_connector": "NixlConnector", "kv_connector_extra_config":
              {"kv_lease_duration": 6}}}}} for n, r in (("p", "prefill"), ("d", "decode"))]
    return parse_settings({
        "models": [{"name": "m", "source": "x", "pools": pools,
                    "routing": {"disaggregation": {"rule": rule}}}],
        "tenants": [{"id": "t", "key_sha256": [hash_key(KEY)]}]}, "test")

POOLS = {pool.role: pool.kv_transfer() for pool in pools_of(settings("always").models[0])}
POOLS["mixed"] = None

class Recorder(LoadRecorder):
    # What vLLM says of blocks that came from another engine, in tokens.
    fetched = 0
    def record(self, scheduler_stats, iteration_stats, *more, **named):
        super().record(scheduler_stats, iteration_stats, *more, **named)
        stats = scheduler_stats and scheduler_stats.connector_prefix_cache_stats
        if stats is not None:
            self.fetched += stats.hits

class Engine:
    async def start(self, model, role):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            os.environ["VLLM_NIXL_SIDE_CHANNEL_PORT"] = str(probe.getsockname()[1])
        config = AsyncEngineArgs(
            model=model, dtype="float32", max_model_len=2048, block_size=32, max_num_seqs=16,
            kv_cache_memory_bytes=64 << 20, enforce_eager=True, enable_prefix_caching=True,
            scheduling_policy="priority", distributed_executor_backend="uni",
            kv_transfer_config=POOLS[role],
            structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
        ).create_engine_config()
        let_yield(config)
        let_resume(config)
        self.child = EngineChild(config, lambda code: None)
        self.child.start()
        recorders = []
        def factory(config, index):
            recorders.append(Recorder(config.cache_config.num_gpu_blocks or 0))
            return recorders[-1]
        self.client = AsyncLLM(
            config, Executor.get_class(config), log_stats=True, log_requests=False,
            stat_loggers=[factory], client_addresses=self.child.client_addresses())
        await prepare_workers(self.client)
        self.recorder = recorders[0]
        self.generator = VllmGenerator(
            self.client, lambda: self.recorder.load, resumes=True,
            chats=ChatFormat(self.client, tool_parser="hermes"))
        self.on_kept = lambda: None
        self.on_keep = lambda: None
        return self

    # What a replica's front end calls.
    def load(self):
        return self.generator.load()
    def adapters(self):
        return self.generator.adapters()
    async def embed(self, request, put):
        return await self.generator.embed(request, put)
    async def submit(self, request, put):
        def told(message):
            if isinstance(message, wire.Kept):
                self.on_kept()
            put(message)
        abort = await self.generator.submit(request, told)
        if isinstance(request.handoff, wire.Keep):
            self.on_keep()
        return abort

    async def blocks_used(self):
        # The gauge is written at the end of a step: make one.
        sampling = wire.Sampling(max_tokens=1)
        ended = asyncio.Event()
        await self.generator.submit(wire.Submit(0, "look", [5], sampling), lambda m: ended.set())
        await ended.wait()
        await asyncio.sleep(0.05)
        return self.recorder.load.kv_blocks_used

    async def freed(self):
        for _ in range(60):
            if not await self.blocks_used():
                return 0
            await asyncio.sleep(0.25)
        return await self.blocks_used()

    def kill(self):
        # A replica's process ends with its engine.
        os.kill(self.child.pid, 9)
        self.ending = asyncio.create_task(self.listener.stop())

DESK = [[{"role": m["role"], "content": m["content"]} for m in example.messages]
        for example in requests(seed=3, n=40)]
SAY = DESK[0]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {
    "type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}}}
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": {
    "type": "object", "properties": {"order": {"enum": [7, 8]}, "late": {"type": "boolean"}},
    "required": ["order", "late"], "additionalProperties": False}}}
CHAT = {"messages": SAY, "temperature": 0, "max_tokens": 24}
KINDS = {
    "chat": CHAT,
    "short": {**CHAT, "messages": SAY[1:]},
    "logprobs": {**CHAT, "logprobs": True, "top_logprobs": 3},
    "tools": {**CHAT, "tools": [TOOL], "tool_choice": "required", "max_tokens": 60},
    "json schema": {**CHAT, "response_format": FORM, "max_tokens": 60},
    "choices": {**CHAT, "n": 3, "temperature": 2, "seed": 11, "ignore_eos": True},
    "penalties": {**CHAT, "frequency_penalty": 1.0, "logit_bias": {"40": 4}, "min_tokens": 20},
    "stop": {**CHAT, "stop": ["e"]},
}

async def all_there(world):
    # Front ends share this process: while it forks, or an engine begins, all of them are silent.
    async with asyncio.timeout(30):
        while world.model.router.avoided():
            await asyncio.sleep(0.02)

async def ask(world, body, stream=False, request_id="r"):
    async with world.post({**body, "id": request_id, "stream": stream}) as answer:
        raw = await answer.read()
        headers = dict(answer.headers)
        if answer.status != 200:
            return {"status": answer.status, "raw": raw.decode()}, headers
    if not stream:
        return [plain(choice, choice["message"]) for choice in json.loads(raw)["choices"]], headers
    lines = [l[6:] for l in raw.decode().splitlines() if l.startswith("data: {")]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines if "choices" in line]
    return "".join(delta.get("content") or "" for delta in deltas), headers

def plain(choice, message):
    calls = [call["function"] for call in message.get("tool_calls") or []]
    scores = [[p["token"], round(p["logprob"], 3), [t["token"] for t in p["top_logprobs"]]]
              for p in (choice.get("logprobs") or {}).get("content") or []]
    return [message["content"], calls, scores, choice["finish_reason"]]

def outcomes(world):
    metrics = world.gateway.metrics.handoffs
    names = ("taken", "recomputed", "whole", "prefill_failed")
    return [int(metrics.labels("m", name)._value.get()) for name in names]

async def main(model):
    os.environ["VLLM_NIXL_SIDE_CHANNEL_HOST"] = "127.0.0.1"
    encoders = {"m": PromptEncoder(Path(model))}
    make = lambda role: Engine().start(model, role)
    alone, prefill, decode = [await make(r) for r in ("mixed", "prefill", "decode")]
    other = await make("decode")
    async with http_world(settings("never"), encoders) as one, \
            http_world(settings("always"), encoders) as two:
        async def add(world, name, engine, role="mixed"):
            replica = await world.add_replica(name, engine, role=role, max_model_len=2048,
                                              block_size=32, kv_blocks_total=600)
            engine.listener = replica.listener
        await add(one, "m", alone)
        await add(two, "p", prefill, "prefill")
        await add(two, "d", decode, "decode")
        out = {"differ": {}, "said": {}}
        for name, body in KINDS.items():
            expected, _ = await ask(one, body)
            await all_there(two)
            got, headers = await ask(two, body)
            out["said"][name] = got
            if expected != got:
                out["differ"][name] = [expected, got]
            assert headers.get("x-weir-prefill-replica") == "p", headers
        text, _ = await ask(one, CHAT, stream=True)
        await all_there(two)
        streamed, _ = await ask(two, CHAT, stream=True)
        out["streamed"] = [text, streamed]
        crowd = [{**CHAT, "messages": DESK[1 + n]} for n in range(12)]
        expected = [(await ask(one, body))[0] for body in crowd]
        await all_there(two)
        got = await asyncio.gather(*(ask(two, body) for body in crowd))
        out["crowd"] = [a == b for a, (b, _) in zip(expected, got)]
        out["outcomes"] = outcomes(two)
        out["fetched"] = decode.recorder.fetched
        out["left"] = [await prefill.freed(), await decode.freed()]

        # Each moment, on prompts that are nowhere in a cache.
        number = 0
        async def fresh():
            nonlocal number
            number += 1
            first = {**DESK[20 + number][0]}
            first["content"] = f"{number} {first['content']}"
            body = {**CHAT, "messages": [first, *DESK[20 + number][1:]]}
            expected, _ = await ask(one, body)
            return body, expected
        out["moments"] = {}
        async def moment(name, strike):
            body, expected = await fresh()
            before = outcomes(two)
            strike()
            got, headers = await ask(two, body, request_id=name)
            told = [b - a for a, b in zip(before, outcomes(two))]
            out["moments"][name] = [got == expected, got, told]
        async def renewed(role, name, engine):
            members = [i for i in two.model.router.members if i.replica_id != name]
            two.model.router.set_replicas(members)
            fresh_one = await make(role)
            await add(two, name + "+", fresh_one, role)
            # The start of an engine blocks this process, gateway included, for seconds: the gateway
            # then takes everybody else for silent, and hears of them again a moment later.
            while two.model.fleet.unreachable() or two.model.router.avoided():
                await asyncio.sleep(0.05)
            return fresh_one, name + "+"

        def at(where, engine):
            def strike():
                def once():
                    engine.on_keep = engine.on_kept = lambda: None
                    engine.kill()
                setattr(engine, where, once)
            return strike
        await moment("prefill lost in the prompt", at("on_keep", prefill))
        prefill, name = await renewed("prefill", "p", prefill)
        await moment("prefill lost before anybody connected", at("on_kept", prefill))
        prefill, name = await renewed("prefill", name, prefill)
        await moment("undisturbed", lambda: None)
        await moment("prefill lost with the blocks", at("on_kept", prefill))
        await moment("no prefill replica", lambda: None)
        out["left after losses"] = await decode.freed()
        prefill, name = await renewed("prefill", name, prefill)
        await add(two, "d2", other, "decode")
        def kill_decode():
            def once():
                prefill.on_kept = lambda: None
                decode.kill()
                other.kill()
            prefill.on_kept = once
        await moment("nobody left to answer but the prefill replica", kill_decode)
        out["left after its decode replicas"] = await prefill.freed()
    print("RESULT" + json.dumps(out), flush=True)

asyncio.run(main(sys.argv[1]))
os._exit(0)
"""


@pytest.fixture(scope="module")
def result(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT)


def test_two_engines_answer_as_one(result: dict[str, Any]) -> None:
    assert result["differ"] == {}
    assert result["streamed"][0] == result["streamed"][1] != ""
    assert all(result["crowd"])
    assert len(result["crowd"]) == 12


def test_the_answers_are_answers(result: dict[str, Any]) -> None:
    said = result["said"]
    assert len(said["choices"]) == 3
    assert said["tools"][0][1][0]["name"] == "look"
    assert said["logprobs"][0][2]
    assert len(set(result["said"]["chat"][0][0].split())) > 4
    assert '"late"' in said["json schema"][0][0]


def test_every_prompt_was_fetched(result: dict[str, Any]) -> None:
    taken, recomputed, whole, failed = result["outcomes"]
    # Eight kinds, one of them with three choices, a stream, and a crowd of twelve.
    assert (taken, recomputed, whole, failed) == (23, 0, 0, 0)
    assert result["fetched"] > 1000


def test_nothing_stays_allocated(result: dict[str, Any]) -> None:
    assert result["left"] == [0, 0]
    assert result["left after losses"] == 0
    assert result["left after its decode replicas"] == 0


@pytest.mark.parametrize(
    ("moment", "outcomes"),
    [
        ("prefill lost in the prompt", [0, 0, 0, 1]),
        ("prefill lost before anybody connected", None),
        ("undisturbed", "shared"),
        ("prefill lost with the blocks", None),
        ("no prefill replica", [0, 0, 0, 0]),
        ("nobody left to answer but the prefill replica", None),
    ],
)
def test_whoever_is_lost_the_answer_is_the_same(
    result: dict[str, Any], moment: str, outcomes: list[int] | str | None
) -> None:
    equal, answer, told = result["moments"][moment]
    assert equal, answer
    if outcomes == "shared":
        # The blocks came, or on a busy machine not before the engines had given up on each other.
        assert (sum(told[:2]), told[2:]) == (1, [0, 0])
    elif outcomes is not None:
        assert told == outcomes
    else:  # the engine computes the prompt, unless the gateway gives up on it first
        assert not told[0]
