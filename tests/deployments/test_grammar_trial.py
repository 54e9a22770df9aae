"""Who tries a grammar when, and what is remembered."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from deployments.grammar_trial import GrammarTrial, TrialLimits
from weir.errors import BadRequestError

def params(regex):
    return SamplingParams(structured_outputs=StructuredOutputsParams(regex=regex))

async def main():
    trial = GrammarTrial(object, TrialLimits(small_bytes=0, small_states=0, remembered=3))
    tried = []

    async def fake(backend, params):
        await asyncio.sleep(0)
        tried.append(params.structured_outputs.regex)

    trial._try = fake
    asked = [("many", f"m{n}") for n in range(6)] + [("one", "o"), ("two", "t")]
    await asyncio.gather(*(trial.check(params(regex), tenant) for tenant, regex in asked))
    out = {"order": list(tried), "lines": len(trial._lines)}
    tried.clear()
    for regex in ("m5", "m4", "m0"):
        await trial.check(params(regex), "one")
    await trial.check(SamplingParams(), "one")
    out["again"] = tried
    out["refused"] = await refused()
    print("RESULT" + json.dumps(out))

async def refused():
    limits = TrialLimits(small_bytes=0, small_states=0, refused_s=0.2, penance=10.0)
    trial, tried, told = GrammarTrial(object, limits), [], []
    clock = asyncio.get_running_loop().time

    async def fake(backend, params):
        regex = params.structured_outputs.regex
        tried.append(regex)
        if regex.startswith("bad"):
            await asyncio.sleep(0.02)
            raise BadRequestError("no " + regex)

    async def check(regex, tenant):
        began_s = clock()
        try:
            await trial.check(params(regex), tenant)
        except BadRequestError as error:
            told.append(error.message)
        return clock() - began_s

    trial._try = fake
    for _ in range(3):
        await check("bad", "one")
    waited = [await check("good", "two"), await check("fine", "one")]
    await asyncio.sleep(0.3)
    await check("bad", "one")
    return {"tried": tried, "told": told, "others": waited[0] < 0.1, "own": waited[1] > 0.1}

asyncio.run(main())
"""


def test_tenants_take_turns_and_what_is_known_is_remembered(with_teacher: Any) -> None:
    out = with_teacher(_SCRIPT)
    assert out["order"] == ["m0", "o", "t", "m1", "m2", "m3", "m4", "m5"]
    assert out["lines"] == 0
    assert out["again"] == ["m0"]
    # A refusal is told again without a trial for a while, and costs its own tenant time only.
    refused = out["refused"]
    assert refused["tried"] == ["bad", "good", "fine", "bad"]
    assert refused["told"] == ["no bad"] * 4
    assert (refused["others"], refused["own"]) == (True, True)
