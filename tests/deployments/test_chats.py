"""Tools, schemas, reasoning and log-probabilities: the same as from vLLM's own chat server, in the
same process and over the same engine; and the same again where a stream is cut and goes on, also
where the engine answers before its client has sent the request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = r"""
import asyncio, json, os, sys
from collections import deque
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine import async_llm
from vllm.v1.engine.output_processor import RequestOutputCollector
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.renderers.online_renderer import OnlineRenderer
from deployments import wire
from deployments.chats import ChatFormat
from deployments.engine import EngineChild
from deployments.resuming import let_resume, prepare_workers
from deployments.vllm_generator import VllmGenerator

SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
          "age": {"type": "integer", "maximum": 99, "minimum": 10}}, "required": ["name", "age"],
          "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "lookup", "parameters": SCHEMA}}]
CALL = r'<tool_call>\n\{"name": "lookup", "arguments": \{"name": "[a-z]{3,8}"\}\}\n</tool_call>'
THOUGHT = r"Here is my thought process: [a-z ]{10,20}\. Here is my response: [a-z ]{5,10}\."
CASES = {
    "tools, none": {"tools": TOOLS, "tool_choice": "none"},
    "tools, auto, plain answer": {"tools": TOOLS},
    "tools, auto, one call": {"tools": TOOLS,
        "structured_outputs": {"regex": "[a-z ]{4,9}" + CALL}},
    "tools, auto, two calls": {"tools": TOOLS,
        "structured_outputs": {"regex": CALL + r"\n" + CALL}},
    "tools, auto, one of two calls": {"tools": TOOLS, "parallel_tool_calls": False,
        "structured_outputs": {"regex": CALL + r"\n" + CALL}},
    "tools, required": {"tools": TOOLS, "tool_choice": "required"},
    "tools, named": {"tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "lookup"}}},
    "schema": {"response_format": {"type": "json_schema",
        "json_schema": {"name": "x", "schema": SCHEMA}}},
    "object": {"response_format": {"type": "json_object"}},
    "reasoning": {"structured_outputs": {"regex": THOUGHT}},
    "reasoning hidden": {"structured_outputs": {"regex": THOUGHT}, "include_reasoning": False},
    "reasoning cut short": {"structured_outputs": {"regex": THOUGHT}, "cut": 9},
}
SAMPLING = {"temperature": 0.0, "max_tokens": 110}

class Slow:
    # Whoever sends a request goes on only when the engine has answered it.
    def __init__(self, core):
        self._send, self.seconds = core.add_request_async, 0.0
        core.add_request_async = self.send
    async def send(self, request):
        await self._send(request)
        await asyncio.sleep(self.seconds)

class InTurn(RequestOutputCollector):
    # vLLM joins outputs that its server is too slow for; then its parsers may lose text.
    def __init__(self, *args):
        super().__init__(*args)
        self.later = deque()
    def put(self, output):
        if self.output is None or isinstance(output, Exception):
            super().put(output)
        else:
            self.later.append(output)
    def get_nowait(self):
        output = super().get_nowait()
        if self.later:
            self.put(self.later.popleft())
        return output
    async def get(self):
        while self.output is None:
            await self.ready.wait()
        return self.get_nowait()

class Pretended:
    is_multimodal_model = True
    def __init__(self, real):
        self._real = real
    def __getattr__(self, name):
        return getattr(self._real, name)

def config_of(model):
    config = AsyncEngineArgs(
        model=model, dtype="float32", max_model_len=512, block_size=32, max_num_seqs=16,
        kv_cache_memory_bytes=64 << 20, enforce_eager=True, distributed_executor_backend="uni",
        structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
        async_scheduling=True,
    ).create_engine_config()
    assert let_resume(config)
    return config

def fold(got):
    out = [m for m in got if isinstance(m, (wire.Chunk, wire.Done))]
    extras = [m.extra for m in out]
    calls = {}
    for call in (call for extra in extras for call in extra.calls):
        one = calls.setdefault(call.index, {"name": "", "arguments": ""})
        one["name"] += call.name
        one["arguments"] += call.arguments
    return {"text": "".join(m.text for m in out), "tokens": [t for m in out for t in m.tokens],
            "reasoning": "".join(e.reasoning for e in extras), "calls": list(calls.values()),
            "reason": getattr(got[-1], "finish_reason", None) or repr(got[-1]),
            "logprobs": [[s.token, round(s.logprob, 3),
                [[t.token, round(t.logprob, 3)] for t in s.top]]
                for e in extras for s in e.logprobs]}

def alike(some, others):
    # A prompt that comes from the cache may change the third digit.
    return len(some) == len(others) and all(
        a[0] == b[0] and abs(a[1] - b[1]) < 0.005 for a, b in zip(some, others))

def fold_served(lines):
    found = {"text": "", "tokens": [], "reasoning": "", "calls": {}, "reason": "", "logprobs": []}
    for line in lines:
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line[6:]).get("choices", []):
            delta = choice["delta"]
            found["text"] += delta.get("content") or ""
            found["reasoning"] += delta.get("reasoning") or ""
            found["tokens"] += choice.get("token_ids") or []
            for call in delta.get("tool_calls") or []:
                one = found["calls"].setdefault(call["index"], {"name": "", "arguments": ""})
                one["name"] += call["function"].get("name") or ""
                one["arguments"] += call["function"].get("arguments") or ""
            found["reason"] = choice.get("finish_reason") or found["reason"]
            found["logprobs"] += [[s["token"], round(s["logprob"], 3),
                [[t["token"], round(t["logprob"], 3)] for t in s["top_logprobs"]]]
                for s in (choice.get("logprobs") or {}).get("content", [])]
    return found | {"calls": list(found["calls"].values())}

async def main(model):
    config = config_of(model)
    child = EngineChild(config, lambda code: None)
    child.start()
    client, plain, recorders = generator_of(config, child)
    await prepare_workers(client)
    slow = Slow(client.engine_core)
    formats = {None: ChatFormat(client, tool_parser="hermes"),
               "granite": ChatFormat(client, tool_parser="hermes", reasoning_parser="granite")}
    shared = dict(request_logger=None, chat_template=None, chat_template_content_format="auto",
                  enable_auto_tools=True, tool_parser="hermes")
    renderer = {name: OnlineRenderer(client.model_config, client.renderer, reasoning_parser=name,
        **shared) for name in formats}
    models = OpenAIServingModels(client, [BaseModelPath(name="m", model_path=model)])
    numbers = iter(range(1, 10**6))

    async def generate(generator, prompt, sampling, resume=None, **more):
        got, ended, number = [], asyncio.Event(), next(numbers)
        def put(message):
            got.append(message)
            if isinstance(message, (wire.Done, wire.Failed)):
                ended.set()
        await generator.submit(wire.Submit(number, f"r{number}", prompt,
            wire.Sampling(**sampling), resume=resume, **more), put)
        await asyncio.wait_for(ended.wait(), 60)
        return got

    async def served(serving, body):
        request = ChatCompletionRequest(**body, stream=True, logprobs=True, top_logprobs=2,
            return_token_ids=True)
        async_llm.RequestOutputCollector = InTurn
        stream = await serving.create_chat_completion(request)
        assert hasattr(stream, "__aiter__"), stream
        lines = [line async for line in stream]
        async_llm.RequestOutputCollector = RequestOutputCollector
        return fold_served(lines)

    out = {"cases": {}, "seams": {}}
    messages = [{"role": "user", "content": "Who am I?"}]
    for name, chat in CASES.items():
        parser = "granite" if "reasoning" in name else None
        chat = dict(chat)
        sampling = SAMPLING | ({"max_tokens": chat.pop("cut")} if "cut" in chat else {})
        serving = OpenAIServingChat(client, models, "assistant", online_renderer=renderer[parser],
            reasoning_parser=parser or "", **shared)
        body = {"messages": messages, "model": "m", **sampling, **json.loads(json.dumps(chat))}
        theirs = await served(serving, body)
        _, (prompt,) = await renderer[parser].render_chat(ChatCompletionRequest(**body))
        ids = prompt["prompt_token_ids"]
        generator = VllmGenerator(client, plain.load, chats=formats[parser], resumes=True)
        got = await generate(generator, ids, sampling, chat=chat, logprobs=2)
        ours = fold(got)
        out["cases"][name] = [theirs, ours]
        broken = []
        for cut in range(1, len(ours["tokens"]), 7):
            for behind in (0, 3):
                # The client has what the outputs of all these tokens but the last few said.
                chunks = [m for m in got if isinstance(m, wire.Chunk)][: max(0, cut - behind)]
                before = fold(chunks or [None])
                resume = wire.Resume(ours["tokens"][:cut], len(before["text"]),
                    len(before["reasoning"]), [len(c["arguments"]) for c in before["calls"]])
                slow.seconds = 0.1 if behind else 0.0
                rest = await generate(generator, ids, sampling, resume, chat=chat, logprobs=2)
                slow.seconds = 0.0
                joined = fold([*chunks, *rest])
                joined["tokens"] = ours["tokens"][:cut] + fold(rest)["tokens"]
                same = alike(ours["logprobs"][cut:], fold(rest)["logprobs"])
                if not same or any(joined[k] != ours[k] for k in ours if k != "logprobs"):
                    broken.append([cut, behind, joined])
        out["seams"][name] = broken
    generator = VllmGenerator(client, plain.load, chats=formats["granite"])
    out["unparsed"] = fold(await generate(generator, ids, SAMPLING, unparsed=True, logprobs=0,
        chat={"structured_outputs": {"regex": THOUGHT}}))
    # As if the model took images: messages are rendered here, which are text all the same.
    pretending = ChatFormat(client, tool_parser="hermes")
    pretending.config = Pretended(client.model_config)
    body = {"model": "m", "n": 2, "stream": True, "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Who am I?"}]}],
            **CASES["schema"]}
    generator = VllmGenerator(client, plain.load, chats=pretending)
    got = await generate(generator, [], SAMPLING | {"max_tokens": 9999}, messages=body, logprobs=2)
    out["rendered"] = [fold(got), type(got[0]).__name__, got[0].prompt_tokens, len(ids)]
    print("RESULT" + json.dumps(out), flush=True)

asyncio.run(main(sys.argv[1]))
os._exit(0)
"""


@pytest.fixture(scope="module")
def found(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT)


def test_what_is_read_is_what_vllms_own_server_reads(found: dict[str, Any]) -> None:
    """Text, reasoning, calls, tokens, log-probabilities and the reason for the end."""
    for name, pair in found["cases"].items():
        theirs, ours = map(dict, pair)
        if name == "reasoning hidden":  # its server hides the tokens, which a gateway needs
            assert theirs["tokens"] == []
            assert len(ours.pop("tokens")) > 20
            del theirs["tokens"]
        _assert_alike(ours.pop("logprobs"), theirs.pop("logprobs"))
        assert ours == theirs, name


def _assert_alike(ours: list[Any], theirs: list[Any]) -> None:
    """The same tokens; values may differ in the third digit, as one prompt came from the cache."""
    assert [scored[0] for scored in ours] == [scored[0] for scored in theirs]
    for (_, value, top), (_, their_value, their_top) in zip(ours, theirs, strict=True):
        assert value == pytest.approx(their_value, abs=0.005)
        assert [t[1] for t in top] == pytest.approx([t[1] for t in their_top], abs=0.005)


def test_the_cases_are_what_they_are_called(found: dict[str, Any]) -> None:
    ours = {name: ours for name, (_, ours) in found["cases"].items()}
    calls = {name: len(case["calls"]) for name, case in ours.items()}
    assert calls["tools, auto, one call"] == calls["tools, required"] == calls["tools, named"] == 1
    assert calls["tools, auto, two calls"] == 2
    assert calls["tools, auto, one of two calls"] == 1
    assert calls["tools, none"] == calls["tools, auto, plain answer"] == 0
    assert (
        ours["tools, auto, one call"]["reason"] == ours["tools, required"]["reason"] == "tool_calls"
    )
    assert ours["tools, auto, one call"]["text"]
    assert ours["reasoning"]["reasoning"]
    assert ours["reasoning"]["text"]
    assert ours["reasoning hidden"]["reasoning"] == ""
    assert ours["reasoning hidden"]["logprobs"] == []
    assert len(ours["schema"]["logprobs"]) == len(ours["schema"]["tokens"])


def test_a_stream_that_is_cut_anywhere_goes_on_exactly(found: dict[str, Any]) -> None:
    assert {name: broken for name, broken in found["seams"].items() if broken} == {}


def test_messages_are_rendered_as_vllms_server_renders_them(found: dict[str, Any]) -> None:
    answer, first, tokens, expected = found["rendered"]
    assert answer == found["cases"]["schema"][1]
    assert (first, tokens) == ("Started", expected)


def test_no_parser_reads_a_plain_completion(found: dict[str, Any]) -> None:
    unparsed = found["unparsed"]
    assert unparsed["reasoning"] == ""
    assert unparsed["text"].startswith("Here is my thought process: ")
    assert "Here is my response: " in unparsed["text"]
