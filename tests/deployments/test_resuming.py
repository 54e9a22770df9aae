"""A stream that one replica began goes on in another's engine: a real one, with its real scheduler.

``test_chats.py`` cuts streams with tools, grammars and log-probabilities in the same way, in an
engine that composes steps ahead; this one waits for each step's tokens and yields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, sys
from types import SimpleNamespace as Some
from vllm.engine.arg_utils import AsyncEngineArgs
from deployments import wire
from deployments.engine import EngineChild
from deployments.resuming import RESUMED, Resuming, let_resume, prepare_workers
from deployments.vllm_generator import VllmGenerator
from deployments.yielding import let_yield

def config_of(model):
    config = AsyncEngineArgs(
        model=model, dtype="float32", max_model_len=256, block_size=32, max_num_seqs=16,
        kv_cache_memory_bytes=64 << 20, enforce_eager=True, enable_prefix_caching=True,
        distributed_executor_backend="uni", scheduling_policy="priority", async_scheduling=False,
        max_num_batched_tokens=64,
    ).create_engine_config()
    assert let_yield(config) and let_resume(config)
    return config

def fold(got):
    out = [m for m in got if isinstance(m, (wire.Chunk, wire.Done))]
    done = got[-1]
    return {"tokens": [t for m in out for t in m.tokens], "text": "".join(m.text for m in out),
            "reason": getattr(done, "finish_reason", repr(done)),
            "counts": [done.prompt_tokens, done.cached_tokens, done.output_tokens],
            "kinds": [type(m).__name__ for m in got if not isinstance(m, wire.Used)]}

# Where the grammar begins in what was resumed: behind the token 9, which ends the reasoning.
class Reasoner:
    def is_reasoning_end(self, ids):
        return 9 in ids
    def is_reasoning_end_streaming(self, ids, delta):
        return 9 in delta

def grammar_begins(prompt, resumed, ended, in_reasoning=False, reasoner=Reasoner()):
    manager = Some(enable_in_reasoning=in_reasoning, _get_reasoner=lambda request: reasoner)
    taken = []
    structured = Some(reasoning_ended=ended, reasoning_end_token_index=None, grammar=Some(
        accept_tokens=lambda name, ids: taken.extend(ids) or True))
    request = Some(prompt_token_ids=prompt, structured_output_request=structured, request_id="r",
                   sampling_params=Some(extra_args={RESUMED: resumed}))
    scheduler = Some(structured_output_manager=manager)
    scheduler._grammar_begins = lambda *a: Resuming._grammar_begins(scheduler, *a)
    assert Resuming._bring_grammar_forward(scheduler, request)
    return [taken, structured.reasoning_ended, structured.reasoning_end_token_index]

async def main(model):
    config = config_of(model)
    child = EngineChild(config, lambda code: None)
    child.start()
    client, plain, recorders = generator_of(config, child)
    await prepare_workers(client)
    generator = VllmGenerator(client, plain.load, resumes=True)
    tokenizer = client.renderer.tokenizer
    numbers = iter(range(1, 10**6))

    async def run(prompt, sampling, resume=None, generator=generator):
        got, ended, number = [], asyncio.Event(), next(numbers)
        def put(message):
            got.append(message)
            if isinstance(message, (wire.Done, wire.Failed)):
                ended.set()
        sampling = wire.Sampling(**{"temperature": 0.0, **sampling})
        await generator.submit(
            wire.Submit(number, f"r{number}", prompt, sampling, resume=resume), put)
        await asyncio.wait_for(ended.wait(), 60)
        return got

    ask = tokenizer.encode("<s><|user|>How do I connect a sensor?<|end|><|assistant|>")
    long = [7 + i % 900 for i in range(150)]
    odd = tokenizer.encode("\\U0001f600\\u65e5\\u00e9", add_special_tokens=False)
    odd = dict.fromkeys(odd, 100.0)
    answer = fold(await run(ask, {"max_tokens": 30, "ignore_eos": True}))["text"]
    cases = {
        "plain": (ask, {"max_tokens": 40}),
        "longer than a step": (long, {"max_tokens": 40, "ignore_eos": True}),
        "penalties": (ask, {"max_tokens": 40, "ignore_eos": True, "presence_penalty": 1.5,
                            "frequency_penalty": 0.7, "repetition_penalty": 1.3}),
        "min_tokens": (ask, {"max_tokens": 60, "min_tokens": 50}),
        "bad words": (ask, {"max_tokens": 30, "ignore_eos": True,
                            "bad_words": [answer.split()[2], answer[:12].strip()]}),
        "bytes": (ask, {"max_tokens": 24, "ignore_eos": True, "logit_bias": odd,
                        "frequency_penalty": 2.0}),
        "stop string": (ask, {"max_tokens": 40, "stop": [answer[17:26]]}),
        "stop string shown": (ask, {"max_tokens": 40, "stop": [answer[17:26]],
                                    "include_stop_str_in_output": True}),
        "special tokens": (ask, {"max_tokens": 40, "ignore_eos": True,
                                 "skip_special_tokens": False}),
    }
    out = {"broken": [], "whole": {}, "wrong": []}
    for name, (prompt, sampling) in cases.items():
        got = await run(prompt, sampling)
        whole = out["whole"][name] = fold(got)
        chunks = [m for m in got if isinstance(m, wire.Chunk)]
        for cut in range(1, len(whole["tokens"]), 3):
            for behind in (0, 2):
                # The client has what the outputs of all these tokens but the last few said.
                sent = "".join(m.text for m in chunks[: max(0, cut - behind)])
                resume = wire.Resume(whole["tokens"][:cut], len(sent))
                rest = fold(await run(prompt, sampling, resume))
                tokens = whole["tokens"][:cut] + rest["tokens"]
                joined = [tokens, sent + rest["text"], rest["reason"]]
                if joined != [whole["tokens"], whole["text"], whole["reason"]]:
                    out["broken"].append([name, cut, behind, joined])
                told, cached, generated = rest["counts"]
                if (told, generated) != (len(prompt), len(rest["tokens"])) or cached > told:
                    out["wrong"].append([name, cut, rest["counts"]])
    tokens = out["whole"]["penalties"]["tokens"]
    # What it would be if the ids were more prompt.
    naive = cases["penalties"][1] | {"max_tokens": 28}
    out["naive"] = tokens[:12] + fold(await run(ask + tokens[:12], naive))["tokens"]
    tokens = out["whole"]["plain"]["tokens"]
    resume = wire.Resume(tokens[:10], 3)
    out["ended"] = {
        "length": fold(await run(ask, {"max_tokens": 10}, resume)),
        "stop": fold(await run(ask, {"max_tokens": 40, "stop": [answer[5:9]]}, resume)),
        "token": fold(await run(ask, {"max_tokens": 40, "stop_token_ids": tokens[9:10]}, resume)),
    }
    out["answer"] = answer
    seeded = {"max_tokens": 30, "temperature": 1.0, "seed": 7, "ignore_eos": True}
    out["sampled"] = fold(await run(ask, seeded, wire.Resume(tokens[:10], 0)))
    try:
        await run(ask, seeded, resume, generator=plain)
    except Exception as refused:
        out["refused"] = [refused.status, str(refused)]
    out["grammar"] = [
        grammar_begins([1, 9], [3, 4], None), grammar_begins([1], [3, 9, 4, 5], None),
        grammar_begins([1], [3, 4], False), grammar_begins([1], [3, 4], True),
        grammar_begins([1], [3, 4], None, in_reasoning=True),
        grammar_begins([1], [3, 4], None, reasoner=None)]
    print("RESULT" + json.dumps(out), flush=True)

asyncio.run(main(sys.argv[1]))
os._exit(0)
"""


@pytest.fixture(scope="module")
def found(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT)


def test_tokens_text_and_end_are_those_of_the_undisturbed_run(found: dict[str, Any]) -> None:
    assert found["broken"] == []


def test_the_cases_are_what_they_are_called(found: dict[str, Any]) -> None:
    whole = found["whole"]
    assert len(whole["min_tokens"]["tokens"]) >= 50
    assert whole["penalties"]["tokens"] != whole["plain"]["tokens"]
    assert whole["stop string"]["reason"] == "stop"
    assert len(whole["stop string"]["text"]) <= 17
    assert len(whole["stop string shown"]["text"]) > len(whole["stop string"]["text"])
    assert any(ord(letter) > 0x7FF and letter != "\ufffd" for letter in whole["bytes"]["text"])
    assert len(whole["bytes"]["tokens"]) > len(whole["bytes"]["text"])
    assert "<|end|>" in whole["special tokens"]["text"]
    # Penalties count resumed tokens as output: as more prompt they would not.
    assert found["naive"] != whole["penalties"]["tokens"]


def test_counts_are_of_the_original_prompt_and_of_what_was_generated_here(
    found: dict[str, Any],
) -> None:
    assert found["wrong"] == []


def test_what_is_complete_already_ends_at_once(found: dict[str, Any]) -> None:
    ended = found["ended"]
    assert [ended[name]["reason"] for name in ended] == ["length", "stop", "stop"]
    for end in ended.values():
        assert end["kinds"] == ["Done"]
        assert end["tokens"] == []
        assert end["counts"][2] == 0
    assert ended["stop"]["text"] == found["answer"][3:5]


def test_a_sampled_stream_goes_on_to_its_length(found: dict[str, Any]) -> None:
    sampled = found["sampled"]
    assert len(sampled["tokens"]) == 20
    assert sampled["reason"] == "length"
    assert sampled["kinds"][0] == "Started"


def test_an_engine_without_the_scheduler_refuses(found: dict[str, Any]) -> None:
    status, why = found["refused"]
    assert status == 501
    assert "continue" in why


def test_the_grammar_takes_in_what_is_behind_the_reasoning(found: dict[str, Any]) -> None:
    in_prompt, in_output, open_still, hidden, everywhere, no_reasoner = found["grammar"]
    assert in_prompt == [[3, 4], True, None]
    assert in_output == [[4, 5], True, 2]
    assert open_still == [[], False, None]
    assert hidden == [[3, 4], True, None]
    assert everywhere[0] == no_reasoner[0] == [3, 4]
