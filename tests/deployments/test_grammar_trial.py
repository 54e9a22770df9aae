"""Who tries a grammar when, and what is remembered."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from deployments.grammar_trial import GrammarTrial, TrialLimits

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
    print("RESULT" + json.dumps(out))

asyncio.run(main())
"""


def test_tenants_take_turns_and_what_passed_is_remembered(with_teacher: Any) -> None:
    out = with_teacher(_SCRIPT)
    assert out["order"] == ["m0", "o", "t", "m1", "m2", "m3", "m4", "m5"]
    assert out["lines"] == 0
    assert out["again"] == ["m0"]
