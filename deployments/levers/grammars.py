"""Levers of structured output: one row for each backend. The answer must obey the schema."""

from __future__ import annotations

import json
from typing import Any

from deployments.levers.engine import Bench, Engine
from deployments.levers.registry import Outcome, lever

_SCHEMA = {
    "type": "object",
    "properties": {
        "intent": {"type": "string", "enum": ["refund", "delivery", "other"]},
        "urgent": {"type": "boolean"},
    },
    "required": ["intent", "urgent"],
    "additionalProperties": False,
}


def _register(backend: str) -> None:
    @lever(f"structured-{backend}", f"structured_outputs_config: {{backend: {backend}}}")
    def obeys(bench: Bench) -> Outcome:
        """Eight answers under a JSON schema; the gain is what the grammar leaves of the speed."""
        return _under_schema(bench, backend)


for _backend in ("xgrammar", "guidance", "outlines", "lm-format-enforcer"):
    _register(_backend)


def _under_schema(bench: Bench, backend: str) -> Outcome:
    from vllm.sampling_params import StructuredOutputsParams

    options: dict[str, Any] = {"backend": backend}
    if backend in ("xgrammar", "guidance"):
        options["disable_any_whitespace"] = True
    engine = Engine(bench.model, structured_outputs_config=options)
    try:
        prompts = bench.prompts(engine, 8)
        schema = StructuredOutputsParams(json=_SCHEMA)
        free = engine.timed(lambda: engine.answer(prompts, 24), bench.runs)
        ruled = engine.timed(
            lambda: engine.answer(prompts, 64, structured_outputs=schema, ignore_eos=False),
            bench.runs,
        )
        tokenizer = engine.llm.get_tokenizer()
        texts = [tokenizer.decode(answer, skip_special_tokens=True) for answer in ruled.answers]
    finally:
        engine.close()
    good = sum(map(_obeys, texts))
    speeds = [sum(map(len, run.answers)) / run.seconds for run in (ruled, free)]
    gain = speeds[0] / speeds[1]
    note = f"{good} of {len(texts)} answers obey the schema"
    return Outcome(good == len(texts), None, gain, "tokens per second, ruled over free", note)


def _obeys(text: str) -> bool:
    try:
        held = json.loads(text)
    except ValueError:
        return False
    if not isinstance(held, dict) or set(held) != {"intent", "urgent"}:
        return False
    return held["intent"] in ("refund", "delivery", "other") and isinstance(held["urgent"], bool)
