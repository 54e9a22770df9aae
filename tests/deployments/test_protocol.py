"""The stub and a real engine speak the protocol by the same rules.

The same requests go to both; :func:`check` has the rules, which follow from
:mod:`deployments.wire`. What they say differs, since one of them has no model.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from deployments import wire
from deployments.streams import CannotDoError
from deployments.stub_generator import StubGenerator

PROMPT = list(range(20, 60))
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 9}},
    "required": ["name"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "lookup", "parameters": SCHEMA}}
NAMED = {"type": "function", "function": {"name": "lookup"}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one token": {"max_tokens": 1},
    "log-probabilities": {"logprobs": 0},
    "likeliest": {"logprobs": 3},
    "prompt too": {"logprobs": 1, "prompt_logprobs": 2},
    "prompt alone": {"prompt_logprobs": 0},
    "empty chat": {"chat": {}},
    "object": {"chat": {"response_format": {"type": "json_object"}}},
    "schema": {"chat": {"response_format": JSON_SCHEMA}, "max_tokens": 40},
    "required": {"chat": {"tools": [TOOL], "tool_choice": "required"}, "max_tokens": 120},
    "named": {"chat": {"tools": [TOOL], "tool_choice": NAMED}, "max_tokens": 120},
    "tools unused": {"chat": {"tools": [TOOL], "tool_choice": "none"}},
}
_FORCED = ("required", "named")

_SCRIPT = """
import asyncio, json, os, sys
import msgspec
from vllm.engine.arg_utils import AsyncEngineArgs
from deployments import wire
from deployments.chats import ChatFormat
from deployments.engine import EngineChild
from deployments.resuming import let_resume, prepare_workers
from deployments.vllm_generator import VllmGenerator
from vllm.v1.engine.exceptions import EngineDeadError
from weir.errors import WeirError

async def main(model):
    config = AsyncEngineArgs(
        model=model, dtype="float32", max_model_len=256, block_size=32, max_num_seqs=16,
        kv_cache_memory_bytes=32 << 20, enforce_eager=True, distributed_executor_backend="uni",
        structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
    ).create_engine_config()
    assert let_resume(config)
    child = EngineChild(config, lambda code: None)
    child.start()
    client, plain, recorders = generator_of(config, child)
    await prepare_workers(client)
    formats = [ChatFormat(client, tool_parser="hermes"), ChatFormat(client)]
    both = [VllmGenerator(client, plain.load, chats=c, resumes=True) for c in formats]

    async def run(data, generator=both[0]):
        request = wire.decode_to_replica(bytes.fromhex(data))
        got, ended = [], asyncio.Event()
        def put(message):
            got.append(message)
            if isinstance(message, (wire.Done, wire.Failed, wire.Embedded)):
                ended.set()
        try:
            if isinstance(request, wire.Embed):
                await generator.embed(request, put)
            else:
                await generator.submit(request, put)
            await asyncio.wait_for(ended.wait(), 60)
        except WeirError as error:
            got.append(wire.Failed(request.stream, error.status, error.message))
        return wire.encode(got).hex()

    found = {}
    for name, data in REQUESTS.items():
        found[name] = [await run(data)]
        got = wire.decode_from_replica(bytes.fromhex(found[name][0]))
        request = wire.decode_to_replica(bytes.fromhex(data))
        tokens = [t for m in got for t in getattr(m, "tokens", ())]
        if len(tokens) > 3 and request.prompt_logprobs is None:
            resume = wire.Resume(tokens[:3])
            again = msgspec.structs.replace(request, resume=resume)
            found[name].append(await run(msgspec.msgpack.encode(again).hex()))
    refused = {name: await run(data) for name, data in REFUSED.items()}
    refused["no parser"] = await run(REQUESTS["required"], both[1])
    # The engine dies under a stream, and is dead for the next.
    endless = wire.Submit(8, "endless", [5, 6], wire.Sampling(max_tokens=200, ignore_eos=True))
    running = asyncio.create_task(run(msgspec.msgpack.encode(endless).hex()))
    while not client.output_processor.request_states:
        await asyncio.sleep(0)
    client.output_processor.propagate_error(EngineDeadError())
    dead = [await running]
    client.engine_core.resources.engine_dead = True
    dead.append(await run(REQUESTS["plain"]))
    print("RESULT" + json.dumps({"found": found, "refused": refused, "dead": dead}), flush=True)

asyncio.run(main(sys.argv[1]))
os._exit(0)
"""


def request(name: str) -> wire.Submit:
    fields = dict(CASES[name])
    sampling = wire.Sampling(
        max_tokens=fields.pop("max_tokens", 8), temperature=0.0, ignore_eos="chat" not in fields
    )
    return wire.Submit(7, name, PROMPT, sampling, **fields)


def _submit(**fields: Any) -> wire.Submit:
    return wire.Submit(7, "r", PROMPT, wire.Sampling(max_tokens=4), **fields)


REFUSED: dict[str, wire.Submit | wire.Embed] = {
    "image": msgspec.structs.replace(
        _submit(
            messages={
                "messages": [{"role": "user", "content": [{"type": "image_url"}]}],
            }
        ),
        prompt=[],
    ),
    "embedding": wire.Embed(7, "r", PROMPT),
    "schema": _submit(
        chat={
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"maxLength": 10**6}},
            }
        }
    ),
    "choice": _submit(chat={"tools": [TOOL], "tool_choice": "sometimes"}),
    "effort": _submit(chat={"reasoning_effort": "huge"}),
    "adapter": _submit(adapter=wire.Adapter("none such", "")),
    "grammar": _submit(chat={"structured_outputs": {"regex": "(["}}),
    "logprobs": _submit(logprobs=1000),
    "bias": _submit(),
}
REFUSED["bias"] = msgspec.structs.replace(
    REFUSED["bias"], sampling=wire.Sampling(max_tokens=4, logit_bias={10**6: 1.0})
)


def check(submit: wire.Submit, got: list[Any]) -> None:
    """What holds of every answer's messages, whoever gives it."""
    *before, used, done = got
    chunks = [m for m in before if isinstance(m, wire.Chunk)]
    assert isinstance(done, wire.Done)
    assert isinstance(used, wire.Used)
    if done.output_tokens:
        own = (done.prompt_tokens, done.cached_tokens, done.output_tokens)
        assert (used.prompt_tokens, used.cached_tokens, used.output_tokens) == own
        assert used.prefill_s >= 0.0
        assert used.decode_s >= 0.0
    assert all(m.stream == submit.stream for m in got)
    kinds = [type(m) for m in before]
    assert kinds == ([wire.Started] if chunks else []) + [type(m) for m in chunks]
    if chunks:
        started = before[0]
        assert (started.prompt_tokens, started.cached_tokens) == (
            done.prompt_tokens,
            done.cached_tokens,
        )
    _check_counts(submit, [*chunks, done], done)
    asked = (submit.chat, submit.logprobs, submit.prompt_logprobs)
    rich = any(field is not None for field in asked)
    assert isinstance(done, wire.RichDone) == rich
    assert rich or not any(isinstance(m, wire.RichChunk) for m in chunks)
    if rich:
        _check_scores(submit, [*chunks, done])
        _check_calls(submit, [*chunks, done], done)


def _check_counts(submit: wire.Submit, outputs: list[Any], done: wire.Done) -> None:
    resumed = len(submit.resume.tokens) if submit.resume else 0
    assert done.prompt_tokens == len(submit.prompt)
    assert 0 <= done.cached_tokens <= done.prompt_tokens
    assert done.output_tokens == sum(len(m.tokens) for m in outputs)
    assert done.output_tokens <= submit.sampling.max_tokens - resumed
    assert done.finish_reason in {"stop", "length", "tool_calls"}
    assert all(m.tokens for m in outputs[:-1])


def _extra(output: Any) -> wire.Extra:
    """What is nothing but text has none, whatever the request asked for."""
    return getattr(output, "extra", None) or wire.Extra()


def _check_scores(submit: wire.Submit, outputs: list[Any]) -> None:
    for m in outputs:
        scored = _extra(m).logprobs
        assert [s.id for s in scored] == (m.tokens if submit.logprobs is not None else [])
        for s in scored:
            assert s.logprob is not None
            assert len(s.top) == submit.logprobs
            values = [t.logprob for t in s.top]
            assert values == sorted(values, reverse=True)
            assert all(not t.top for t in s.top)
    first, *others = outputs
    assert not any(_extra(m).prompt_logprobs for m in others)
    if submit.prompt_logprobs is None:
        assert not _extra(first).prompt_logprobs
    else:
        assert [s.id for s in _extra(first).prompt_logprobs] == submit.prompt
        assert [s.logprob is None for s in _extra(first).prompt_logprobs][:2] == [True, False]


def _check_calls(submit: wire.Submit, outputs: list[Any], done: wire.Done) -> None:
    deltas = [call for m in outputs for call in _extra(m).calls]
    announced: set[int] = set()
    for call in deltas:
        assert bool(call.name) == bool(call.id) == (call.index not in announced)
        announced.add(call.index)
    assert announced == set(range(len(announced)))
    if done.finish_reason == "tool_calls":
        assert announced


def wire_hex(message: Any) -> str:
    return msgspec.msgpack.encode(message).hex()


@pytest.fixture(scope="module")
def engine(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    requests = {name: wire_hex(request(name)) for name in CASES}
    refused = {name: wire_hex(r) for name, r in REFUSED.items()}
    script = f"REQUESTS = {json.dumps(requests)}\nREFUSED = {json.dumps(refused)}\n" + _SCRIPT
    return with_teacher(script)


def _decoded(data: str) -> list[Any]:
    return list(wire.decode_from_replica(bytes.fromhex(data)))


async def _stub(submit: wire.Submit) -> list[Any]:
    got: list[Any] = []
    await StubGenerator(0.0).submit(submit, got.append)
    async with asyncio.timeout(5):
        while not (got and isinstance(got[-1], wire.Done)):  # noqa: ASYNC110 - polls
            await asyncio.sleep(0)
    return got


def _outputs(got: list[Any]) -> list[Any]:
    return [m for m in got if isinstance(m, wire.Chunk | wire.Done)]


def _check_case(name: str, whole: list[Any], resumed: list[Any] | None) -> None:
    check(request(name), whole)
    tokens = [t for m in _outputs(whole) for t in m.tokens]
    if name in _FORCED:
        calls = [call for m in _outputs(whole) for call in _extra(m).calls]
        assert calls[0].name == "lookup"
        assert json.loads("".join(call.arguments for call in calls if call.index == 0))
        assert "".join(m.text for m in _outputs(whole)) == ""
        assert _outputs(whole)[-1].finish_reason == ("tool_calls" if name == "required" else "stop")
    if resumed is None:
        return
    check(msgspec.structs.replace(request(name), resume=wire.Resume(tokens[:3])), resumed)
    assert [t for m in _outputs(resumed) for t in m.tokens] == tokens[3:]
    # Nothing had been delivered: all of the answer comes from the second replica.
    for part in (_text, _arguments):
        assert part(resumed) == part(whole)


def _text(got: list[Any]) -> str:
    return "".join(m.text for m in _outputs(got))


def _arguments(got: list[Any]) -> str:
    extras = [m.extra for m in _outputs(got) if hasattr(m, "extra")]
    return "".join(call.name + call.arguments for extra in extras for call in extra.calls)


@pytest.mark.parametrize("name", CASES)
async def test_the_stub_keeps_the_rules(name: str) -> None:
    submit = request(name)
    whole = await _stub(submit)
    tokens = [t for m in _outputs(whole) for t in m.tokens]
    resumed = None
    # Log-probabilities of the prompt come with the first output, which the first replica gave.
    if len(tokens) > 3 and submit.prompt_logprobs is None:
        resumed = await _stub(msgspec.structs.replace(submit, resume=wire.Resume(tokens[:3])))
    _check_case(name, whole, resumed)


@pytest.mark.engine
@pytest.mark.parametrize("name", CASES)
def test_an_engine_keeps_the_rules(engine: dict[str, Any], name: str) -> None:
    whole, *resumed = map(_decoded, engine["found"][name])
    _check_case(name, whole, resumed[0] if resumed else None)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("image", 400, "text only"),
        ("embedding", CannotDoError.status, "no embeddings"),
        ("schema", 400, "response_format.json_schema.schema has a maxLength"),
        ("choice", 400, "tool_choice"),
        ("effort", 400, "reasoning_effort"),
        ("adapter", 404, "none such"),
        ("grammar", 400, "regex"),
        ("logprobs", 400, "logprobs"),
        ("bias", 400, "logit_bias"),
        ("no parser", 400, "cannot call tools"),
    ],
)
def test_an_engine_refuses_in_plain_words(
    engine: dict[str, Any], name: str, status: int, says: str
) -> None:
    (failed,) = _decoded(engine["refused"][name])
    assert isinstance(failed, wire.Failed)
    assert failed.status == status
    assert says in failed.message
    assert "--" not in failed.message


@pytest.mark.engine
def test_a_dead_engine_is_a_failure_of_the_replica(engine: dict[str, Any]) -> None:
    under_a_stream, afterwards = map(_decoded, engine["dead"])
    for got in (under_a_stream, afterwards):
        assert isinstance(got[-1], wire.Failed)
        assert got[-1].status == 503
