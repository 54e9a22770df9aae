"""A real engine beside requests that mean it no good: grammars that cost too much, and the ends of
every numeric field, alone and in pairs. Another stream goes on meanwhile, in the same process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, itertools, json, os, sys, time
from vllm.engine.arg_utils import AsyncEngineArgs
from deployments import wire
from deployments.engine import EngineChild
from functools import partial
from deployments.grammar_helper import GrammarHelper, TrialBounds, grammar_backend
from deployments.vllm_generator import VllmGenerator
from weir.errors import BadRequestError

def schema(tree):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": tree}}
    return {"response_format": form}

def regex(text):
    return {"structured_outputs": {"regex": text}}

def nested(levels):
    tree = {"type": "string"}
    for level in range(levels):
        left = {"type": "object", "properties": {f"a{level}": tree}}
        tree = {"anyOf": [left, {"type": "array", "items": tree}, {"type": "integer"}]}
    return tree

def lists(most, items):
    return schema({"type": "array", "maxItems": most, "items": items})

GRAMMARS = {
    "usual": schema({"type": "object", "properties": {"a": {"type": "string"}}}),
    "words": schema({"enum": [f"word {n}" for n in range(4000)]}),
    "nested": schema(nested(8)),
    "deep": schema({"oneOf": [{"type": "array", "items": nested(6)}, nested(7)]}),
    "itself": schema({"$ref": "#"}),
    "itself, one of": schema({"anyOf": [{"$ref": "#"}]}),
    "itself, all of": schema({"allOf": [{"$ref": "#"}, {"type": "object"}]}),
    "tree": schema({"type": "object", "properties": {"a": {"$ref": "#"}}}),
    "counts": lists(90, {"type": "string", "maxLength": 90}),
    "many counts": lists(500, {"type": "string", "maxLength": 500}),
    "regex": regex("((a{1,20}){1,20}b){1,20}"),
    "large regex": regex("((a{1,100}){1,100}b){1,100}"),
    "wide regex": regex("|".join(f"(x{n}y*)+" for n in range(3000))),
    "big number": schema({"type": "integer", "minimum": 0, "maximum": 10**30}),
}

async def main(model):
    config = AsyncEngineArgs(
        model=model, dtype="float32", max_model_len=2048, block_size=32, max_num_seqs=64,
        kv_cache_memory_bytes=64 << 20, enforce_eager=True, scheduling_policy="priority",
        distributed_executor_backend="uni",
        structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
    ).create_engine_config()
    helper = GrammarHelper(partial(grammar_backend, config), TrialBounds(compile_s=LIMIT_S))
    helper.start()
    deaths = []
    child = EngineChild(config, deaths.append)
    child.start()
    client, _, recorders = generator_of(config, child)
    generator = VllmGenerator(client, lambda: recorders[0].load, grammars=helper)
    numbers = itertools.count(1)
    arrivals, broken, over = [], [], asyncio.Event()

    async def ask(sampling, on=lambda m: None, **more):
        number, ended = next(numbers), asyncio.get_running_loop().create_future()
        def put(message):
            on(message)
            if isinstance(message, (wire.Done, wire.RichDone, wire.Failed)) and not ended.done():
                ended.set_result(message)
        try:
            prompt = [3 + n % 50 for n in range(20)]
            await generator.submit(wire.Submit(number, f"r{number}", prompt, sampling, **more), put)
        except BadRequestError as error:
            return f"400: {error.message}"
        message = await asyncio.wait_for(ended, 60)
        if isinstance(message, wire.Failed):
            return f"{message.status}: {message.message}"
        return "ok"

    async def beside():
        sampling = wire.Sampling(max_tokens=1500, temperature=0.0, ignore_eos=True)
        while not over.is_set():
            said = await ask(sampling, on=lambda m: arrivals.append(time.monotonic()))
            if said != "ok":
                broken.append(said)

    other = asyncio.create_task(beside())
    while len(arrivals) < 50:
        await asyncio.sleep(0.05)
    gap = lambda since: max(
        (b - a for a, b in itertools.pairwise([t for t in arrivals if t >= since])), default=0.0)
    out = {"calm_gap_s": gap(0.0), "grammars": {}}
    for name, chat in GRAMMARS.items() if GRAMMARS_TOO else ():
        since = time.monotonic()
        said = await ask(wire.Sampling(max_tokens=8, temperature=0.0), chat=chat)
        out["grammars"][name] = [said, time.monotonic() - since, gap(since)]
    if PAIRS_TOO:
        vocabulary = config.model_config.get_vocab_size()
        ends = {
            "min_tokens": [6], "temperature": [0.0, 1e-40, 1e-5, 2.0],
            "top_p": [1e-40, 1e-6, 1.0], "top_k": [-1, 0, 1, 2**31 - 1], "min_p": [1e-40, 1.0],
            "frequency_penalty": [-2.0, 2.0], "presence_penalty": [-2.0, 2.0],
            "repetition_penalty": [0.01, 10.0], "seed": [-(2**63) + 1, 2**63 - 1],
            "stop_token_ids": [[0], [vocabulary - 1], [vocabulary], [2**31 - 1]],
            "logit_bias": [{0: -100.0}, {vocabulary - 1: 100.0}, {vocabulary: 1.0}, {9999999: 1.0}],
            "ignore_eos": [True], "stop": [["a"]], "bad_words": [["a", "the"]],
            "logprobs": [0, 20], "prompt_logprobs": [0, 20],
        }
        single = [(name, value) for name, values in ends.items() for value in values]
        pairs = [p for p in itertools.combinations(single, 2) if p[0][0] != p[1][0]]
        gate, said = asyncio.Semaphore(48), {}
        async def one(pair):
            fields = dict(pair)
            more = {n: fields.pop(n) for n in ("logprobs", "prompt_logprobs") if n in fields}
            async with gate:
                said[str(pair)] = await ask(wire.Sampling(max_tokens=6, **fields), **more)
        since = time.monotonic()
        await asyncio.gather(*(one(pair) for pair in [*((s,) for s in single), *pairs]))
        out["pairs"] = len(said)
        out["seconds"] = time.monotonic() - since
        out["failed"] = {p: s for p, s in said.items() if s != "ok" and not s.startswith("400")}
        out["refused"] = {p: s for p, s in said.items() if s.startswith("400")}
        out["gap_s"] = gap(since)
    over.set()
    other.cancel()
    out["broken"], out["deaths"] = broken, deaths
    try:
        os.waitpid(-1, os.WNOHANG)
        out["children"] = True
    except ChildProcessError:
        out["children"] = False
    child.stop()
    print("RESULT" + json.dumps(out), flush=True)
    os._exit(0)

if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
"""


def _script(grammars: bool, pairs: bool, limit_s: float = 2.0) -> str:
    head = f"GRAMMARS_TOO, PAIRS_TOO, LIMIT_S = {grammars}, {pairs}, {limit_s}\n"
    return head + _SCRIPT


def test_no_grammar_stops_another_stream(with_teacher: Callable[[str], dict[str, Any]]) -> None:
    out = with_teacher(_script(grammars=True, pairs=False))
    said = {name: what for name, (what, _, _) in out["grammars"].items()}
    assert {said[name] for name in ("usual", "tree", "counts")} == {"ok"}
    for name in ("itself", "itself, one of", "many counts", "large regex"):
        assert said[name].startswith("400"), (name, said[name])
    assert all(what == "ok" or what.startswith("400") for what in said.values()), said
    # The engine itself froze for half a minute once.
    assert max(gap_s for _, _, gap_s in out["grammars"].values()) < 5.0
    assert max(took_s for _, took_s, _ in out["grammars"].values()) < 20.0
    assert out["broken"] == []
    assert out["deaths"] == []


def test_a_grammar_that_takes_too_long_is_killed(
    with_teacher: Callable[[str], dict[str, Any]],
) -> None:
    out = with_teacher(_script(grammars=True, pairs=False, limit_s=0.001))
    said = {name: what for name, (what, _, _) in out["grammars"].items()}
    assert said["usual"] == "ok"  # too small to be tried
    assert "takes longer" in said["words"]
    assert "takes longer" in said["counts"]
    assert out["broken"] == []
    assert out["deaths"] == []


def test_no_numbers_end_an_engine(with_teacher: Callable[[str], dict[str, Any]]) -> None:
    out = with_teacher(_script(grammars=False, pairs=True))
    assert out["pairs"] > 400
    assert out["failed"] == {}
    # Nothing but tokens that do not exist is refused.
    assert all("out-of-vocab" in why for why in out["refused"].values()), out["refused"]
    assert out["broken"] == []
    assert out["deaths"] == []
