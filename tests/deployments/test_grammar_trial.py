"""Who tries a grammar when, and what is remembered."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, signal, sys, tempfile, time
from types import SimpleNamespace
import psutil
from deployments.grammar_helper import (
    BROKEN, INVALID, OVER, PASSED, SLOW, GrammarHelper, TrialBounds, grammar_backend)
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from deployments.grammar_trial import GrammarTrial, TrialLimits
from weir.errors import BadRequestError

def params(regex):
    return SamplingParams(structured_outputs=StructuredOutputsParams(regex=regex))

async def main():
    tried = []

    async def fake(asked):
        await asyncio.sleep(0)
        tried.append(asked.regex)
        return PASSED

    limits = TrialLimits(small_bytes=0, small_states=0, remembered=3, places=6)
    trial = GrammarTrial(fake, limits)
    asked = [("many", f"m{n}") for n in range(6)] + [("one", "o"), ("two", "t")]
    await asyncio.gather(*(trial.check(params(regex), tenant) for tenant, regex in asked))
    out = {"order": list(tried), "lines": len(trial._lines)}
    tried.clear()
    for regex in ("m5", "m4", "m0"):
        await trial.check(params(regex), "one")
    await trial.check(SamplingParams(), "one")
    out["again"] = list(tried)
    asked = [trial.check(params(f"x{n}"), "many") for n in range(8)]
    gone = await asyncio.gather(*asked, trial.check(params("y"), "one"), return_exceptions=True)
    out["crowd"] = [type(error).__name__ for error in gone if error is not None]
    out["waiting"] = len(trial._waiting)
    out["refused"] = await refused()
    print("RESULT" + json.dumps(out))

async def refused():
    limits = TrialLimits(small_bytes=0, small_states=0, refused_s=0.2, penance=10.0)
    tried, told = [], []
    clock = asyncio.get_running_loop().time

    async def fake(asked):
        tried.append(asked.regex)
        if asked.regex.startswith("bad"):
            await asyncio.sleep(0.02)
            return BROKEN
        return PASSED

    trial = GrammarTrial(fake, limits)

    async def check(regex, tenant):
        began_s = clock()
        try:
            await trial.check(params(regex), tenant)
        except BadRequestError as error:
            told.append(error.message)
        return clock() - began_s

    for _ in range(3):
        await check("bad", "one")
    waited = [await check("good", "two"), await check("fine", "one")]
    await asyncio.sleep(0.3)
    await check("bad", "one")
    return {"tried": tried, "told": told, "others": waited[0] < 0.1, "own": waited[1] > 0.1}

asyncio.run(main())
"""
_HELPER = (
    _SCRIPT.partition("async def main")[0]
    + """
def regex(text):
    return StructuredOutputsParams(regex=text)

def backend(config):
    # Whatever the machine does meanwhile, "slow" takes too long and "large" too much.
    made = grammar_backend(config)
    compiled = made.compile_grammar
    def compile_grammar(kind, text, stop):
        if text == "slow":
            time.sleep(60)
        kept = bytearray(256 << 20) if text == "large" else b""
        return compiled(kind, text, stop)
    made.compile_grammar = compile_grammar
    return made

def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE

async def main(model):
    config = AsyncEngineArgs(model=model, dtype="float32", max_model_len=256).create_engine_config()
    said, held = {}, tempfile.NamedTemporaryFile()
    bounds = TrialBounds(compile_s=10.0, step_s=10.0, memory_bytes=128 << 20)
    helper = GrammarHelper(lambda: backend(config), bounds)
    helper.start()
    born = helper.pid
    said["good"] = await helper.try_grammar(regex("[a-z]{3,9}"))
    files = [os.path.realpath(f"/proc/{born}/fd/{n}") for n in os.listdir(f"/proc/{born}/fd")]
    said["holds"] = held.name in files
    invalid = StructuredOutputsParams(grammar="root ::= (")
    said["invalid"] = await helper.try_grammar(invalid)
    items = {"type": "array", "items": {"type": "integer", "multipleOf": 3}}
    said["guidance"] = await helper.try_grammar(StructuredOutputsParams(json=items))
    named = {"type": "object", "patternProperties": {"^a(b*)*$": {"type": "string"}}}
    said["outlines"] = await helper.try_grammar(StructuredOutputsParams(json=named))
    said["over"] = await helper.try_grammar(regex("slow"))
    said["memory"] = await helper.try_grammar(regex("large"))
    said["after"] = await helper.try_grammar(regex("[a-z]{3,8}"))
    # Who asked has left: the trial ends, and the next one has its own answer.
    left = asyncio.create_task(helper.try_grammar(regex("slow")))
    while not psutil.Process(born).children():
        await asyncio.sleep(0.01)
    left.cancel()
    await asyncio.wait([left])
    said["next"] = await helper.try_grammar(regex("[a-z]{3,7}"))
    said["same"] = helper.pid == born
    said["trials left"] = len(psutil.Process(born).children())
    os.kill(born, signal.SIGKILL)
    said["reborn"] = await helper.try_grammar(regex("[a-z]{3,6}"))
    said["another"] = helper.pid != born
    reborn = helper.pid
    helper.close()
    said["closed"] = not alive(reborn) and helper.pid == 0
    # A helper ends with its replica, however that ends.
    reader, writer = os.pipe()
    replica = os.fork()
    if replica == 0:
        lonely = GrammarHelper(lambda: grammar_backend(config))
        lonely.start()
        os.write(writer, str(lonely.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(replica, 0)
    lonely = int(os.read(reader, 20))
    for _ in range(600):
        if not alive(lonely):
            break
        await asyncio.sleep(0.05)
    said["lonely ended"] = not alive(lonely)
    print("RESULT" + json.dumps(said))

asyncio.run(main(sys.argv[1]))
"""
)


def test_tenants_take_turns_and_what_is_known_is_remembered(with_teacher: Any) -> None:
    out = with_teacher(_SCRIPT)
    assert out["order"] == ["m0", "o", "t", "m1", "m2", "m3", "m4", "m5"]
    assert out["lines"] == 0
    assert out["again"] == ["m0"]
    assert out["crowd"] == ["OverloadedError", "OverloadedError"]
    assert out["waiting"] == 0
    # A refusal is told again without a trial for a while, and costs its own tenant time only.
    refused = out["refused"]
    assert refused["tried"] == ["bad", "good", "fine", "bad"]
    assert len(refused["told"]) == 4
    assert all("cannot be compiled" in said for said in refused["told"])
    assert (refused["others"], refused["own"]) == (True, True)


def test_the_helper_tries_ends_and_is_ended(with_teacher: Any) -> None:
    said = with_teacher(_HELPER)
    memory = said.pop("memory")
    assert memory not in (0, 3, -1), "a trial has no more memory than its bound"
    assert said == {
        "holds": False,
        "good": 0,
        "invalid": 3,
        "guidance": 3,
        "outlines": 5,
        "over": -1,
        "after": 0,
        "next": 0,
        "same": True,
        "trials left": 0,
        "reborn": 0,
        "another": True,
        "closed": True,
        "lonely ended": True,
    }
