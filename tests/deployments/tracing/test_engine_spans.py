"""vLLM's own span of a request hangs below the gateway's leg, for sampled requests alone; and an
engine whose collector hangs generates as if there were none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from deployments import wire
from deployments.engine import EngineChild
from deployments.engine_tracing import engine_tracing
from deployments.resuming import let_resume, prepare_workers
from deployments.testing.collector import collecting
from weir.settings.tracing import TracingSettings

TRACE, LEG = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

async def run(model, collector):
    told = engine_tracing(TracingSettings(endpoint=collector.url, protocol="http/protobuf"))
    os.environ.update(told.environment)
    config = AsyncEngineArgs(
        model=model, dtype="float32", max_model_len=1024, block_size=32, max_num_seqs=16,
        kv_cache_memory_bytes=64 << 20, enforce_eager=True, enable_prefix_caching=True,
        distributed_executor_backend="uni", scheduling_policy="priority", **told.arguments,
    ).create_engine_config()
    assert let_resume(config)
    child = EngineChild(config, lambda code: None)
    child.start()
    client, plain, recorders = generator_of(config, child)
    await prepare_workers(client)
    generator = VllmGenerator(client, plain.load, resumes=True)

    async def ask(number, name, trace, **more):
        ended, last = asyncio.Event(), []
        def put(message):
            if isinstance(message, (wire.Done, wire.Failed)):
                last.append(type(message).__name__)
                ended.set()
        wanted = wire.Sampling(max_tokens=4, temperature=0.0, ignore_eos=True)
        prompt = list(range(10, 40))
        request = wire.Submit(number, name, prompt, wanted, trace=trace, **more)
        await generator.submit(request, put)
        await asyncio.wait_for(ended.wait(), 30)
        return last[0]

    def parent(trace, flags):
        return f"00-{trace}-{LEG}-{flags}"

    said = [await ask(1, "plain", parent(TRACE, "01")), await ask(2, "none", None),
            await ask(3, "rich", parent(TRACE[::-1], "01"), logprobs=1),
            await ask(4, "unsampled", parent("a" * 32, "00"))]
    from opentelemetry import trace
    await asyncio.to_thread(trace.get_tracer_provider().force_flush)
    spans = [[s.name, s.trace_id.hex(), s.parent_span_id.hex(),
              {a.key: a.value.int_value for a in s.attributes}] for s in collector.spans]
    collector.wait_s = 60.0
    said += [await ask(n, f"hangs{n}", parent(TRACE, "01")) for n in range(5, 15)]
    collector.released.set()
    child.stop()
    return {"said": said, "spans": spans, "resources": collector.resources}

with collecting() as collector:
    print("RESULT" + json.dumps(asyncio.run(run(sys.argv[1], collector))), flush=True)
os._exit(0)
"""


def test_the_engines_span_is_the_legs_child(
    with_teacher: Callable[[str], dict[str, Any]],
) -> None:
    told = with_teacher(_SCRIPT)
    assert told["said"] == ["Done", "Done", "RichDone"] + ["Done"] * 11
    trace, leg = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    found = {(name, trace_id, parent) for name, trace_id, parent, _ in told["spans"]}
    assert found == {("llm_request", trace, leg), ("llm_request", trace[::-1], leg)}
    for *_, attributes in told["spans"]:
        assert attributes["gen_ai.usage.prompt_tokens"] == 30
        assert attributes["gen_ai.usage.completion_tokens"] == 4
    assert {each["service.name"] for each in told["resources"]} == {"weir-engine"}
