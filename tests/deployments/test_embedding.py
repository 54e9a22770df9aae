"""Embeddings from a real engine: the teacher's weights, pooled."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from deployments import wire
from deployments.engine import EngineChild
from weir.errors import WeirError

async def main(model):
    config = AsyncEngineArgs(
        model=model, runner="pooling", convert="embed", dtype="float32", max_model_len=256,
        block_size=32, max_num_seqs=8,
        kv_cache_memory_bytes=16 << 20, enforce_eager=True, distributed_executor_backend="uni",
        enable_prefix_caching=True,
    ).create_engine_config()
    child = EngineChild(config, lambda code: None)
    child.start()
    client, generator, recorders = generator_of(config, child)

    async def embed(number, prompt, **more):
        got, ended = [], asyncio.Event()
        def put(message):
            if isinstance(message, wire.Used):
                return
            got.append(message)
            ended.set()
        await generator.embed(wire.Embed(number, f"r{number}", prompt, **more), put)
        await asyncio.wait_for(ended.wait(), 60)
        return got

    out = {"refused": []}
    same = list(range(10, 110))
    first, again, other = await asyncio.gather(embed(1, same), embed(2, same), embed(3, [9, 8, 7]))
    for name, got in (("first", first), ("again", again), ("other", other)):
        (message,) = got
        out[name] = [type(message).__name__, message.prompt_tokens, message.vector]
    sampling = wire.Sampling(max_tokens=2)
    for begin, request in (
        (generator.embed, wire.Embed(4, "r4", [1, 2], dimensions=7)),
        (generator.embed, wire.Embed(5, "r5", list(range(300)))),
        (generator.submit, wire.Submit(6, "r6", [1, 2], sampling)),
    ):
        try:
            await begin(request, print)
        except WeirError as error:
            out["refused"].append([error.status, error.message])
    print("RESULT" + json.dumps(out), flush=True)

asyncio.run(main(sys.argv[1]))
os._exit(0)
"""


@pytest.fixture(scope="module")
def found(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT)


def test_a_prompt_has_one_vector_of_length_one(found: dict[str, Any]) -> None:
    kind, tokens, vector = found["first"]
    assert (kind, tokens, len(vector)) == ("Embedded", 100, 256)
    assert math.isclose(sum(x * x for x in vector), 1.0, abs_tol=1e-3)
    assert found["again"][2] == pytest.approx(vector, abs=1e-4)
    assert found["other"][1] == 3
    assert found["other"][2] != pytest.approx(vector, abs=0.05)


def test_what_cannot_be_embedded_is_refused(found: dict[str, Any]) -> None:
    dimensions, too_long, generate = found["refused"]
    assert dimensions[0] == too_long[0] == 400
    assert "dimension" in dimensions[1]
    assert "256" in too_long[1]
    assert generate == [501, "This model embeds text; it generates none."]
