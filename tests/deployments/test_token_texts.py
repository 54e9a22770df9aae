"""What a chat's answer means does not depend on how its tokens were put together into outputs: for
the parsers of every family that weir knows, as vLLM ships them, in a tokenizer with their markers.

Not here: gpt-oss (its vocabulary is fetched) and Command A (its parser is a package apart)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = r"""
import json, random, sys
from types import SimpleNamespace
from transformers import AutoTokenizer
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser.parser_manager import ParserManager
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from deployments.chats import Asked, ChatReader, Piece
from deployments.token_texts import TokenTexts
from weir.settings.parsers import FAMILIES

ELSEWHERE = {"openai", "cohere_command3"}
ARGUMENTS = {"name": "jo: é", "age": 42}
JSON = json.dumps(ARGUMENTS, ensure_ascii=False)
ANSWER = "The answer: here, 42 😀. Done: ok"
THOUGHT = "I think: it's 4 ünd é 😀 here: yes.\nSo <b> and [ it is"
FIELDS = {"name": {"type": "string"}, "age": {"type": "integer"}}
TOOL = {"name": "lookup", "parameters": {"type": "object", "properties": FIELDS}}

def call(key):
    return json.dumps({"name": "lookup", key: ARGUMENTS}, ensure_ascii=False)

def xml(begin, parameter, end):
    return begin + "".join(parameter.format(name=n, value=v) for n, v in ARGUMENTS.items()) + end

FUNCTION = xml("\n<function=lookup>\n", "<parameter={name}>\n{value}\n</parameter>\n",
               "</function>\n")
DS = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
GLM = xml("<tool_call>lookup\n", "<arg_key>{name}</arg_key>\n<arg_value>{value}</arg_value>\n",
          "</tool_call>")
CALLS = {
    "llama3_json": [call("parameters")],
    "llama4_pythonic": ["[lookup(name='jo: e', age=42)]"],
    "hermes": [ANSWER, *[f"<tool_call>\n{call('arguments')}\n</tool_call>"] * 2],
    "mistral": [ANSWER, *[f"[TOOL_CALLS]lookup[ARGS]{JSON}"] * 2],
    "qwen3_coder": [ANSWER, *[f"<tool_call>{FUNCTION}</tool_call>"] * 2],
    "deepseek_v3": [ANSWER, "<｜tool▁calls▁begin｜>", "\n".join(
        [f"{DS[0]}function{DS[1]}lookup\n```json\n{JSON}\n```{DS[2]}"] * 2),
        "<｜tool▁calls▁end｜>"],
    "deepseek_v31": [ANSWER, "<｜tool▁calls▁begin｜>", *[f"{DS[0]}lookup{DS[1]}{JSON}{DS[2]}"] * 2,
        "<｜tool▁calls▁end｜>"],
    "deepseek_v32": [ANSWER, "\n\n<｜DSML｜function_calls>\n", *[
        '<｜DSML｜invoke name="lookup">\n'
        '<｜DSML｜parameter name="name" string="true">jo: é</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="age" string="false">42</｜DSML｜parameter>\n'
        '</｜DSML｜invoke>\n'] * 2, "</｜DSML｜function_calls>"],
    "granite": ["<|tool_call|>[", call("arguments"), ", ", call("arguments"), "]"],
    "glm45": [ANSWER, GLM, GLM],
    "glm47": [ANSWER, GLM, GLM],
    "kimi_k2": [ANSWER, "<|tool_calls_section_begin|>", *[
        f"<|tool_call_begin|>functions.lookup:{n}<|tool_call_argument_begin|>{JSON}"
        "<|tool_call_end|>" for n in range(2)], "<|tool_calls_section_end|>"],
    "phi4_mini_json": ["functools[", call("arguments"), "]"],
    "seed_oss": [ANSWER, *[f"<seed:tool_call>{FUNCTION}</seed:tool_call>"] * 2],
    "minimax_m2": [ANSWER, "<minimax:tool_call>\n", *[xml('<invoke name="lookup">\n',
        '<parameter name="{name}">{value}</parameter>\n', "</invoke>\n")] * 2,
        "</minimax:tool_call>"],
}
THOUGHTS = {
    None: "{}", "mistral": "[THINK]{}[/THINK]", "seed_oss": "<seed:think>{}</seed:think>",
    "granite": "Here is my thought process:{}Here is my response:",
}
MARKERS = [
    "<think>", "</think>", "[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]", "<tool_call>",
    "</tool_call>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", *DS, "<|tool_call|>",
    "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_end|>",
    "<|tool_call_argument_begin|>", "<seed:think>", "</seed:think>", "<seed:tool_call>",
    "</seed:tool_call>", "<minimax:tool_call>", "</minimax:tool_call>", "｜DSML｜",
    "<|python_tag|>", "<|python_start|>", "<|python_end|>", "<|tool_call_start|>",
]
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
tokenizer.add_tokens(MARKERS)
PROMPT = tokenizer.encode("hello", add_special_tokens=False)

def detokenized(tokens, sizes, stop=None):
    # Outputs as vLLM puts them out, where an engine's steps end with so many tokens each.
    params = SamplingParams(skip_special_tokens=False, stop=stop)
    request = SimpleNamespace(request_id="r", prompt_token_ids=PROMPT, sampling_params=params)
    made, at, outputs = IncrementalDetokenizer.from_new_request(tokenizer, request), 0, []
    while at < len(tokens):
        some = tokens[at:at + next(sizes)]
        at += len(some)
        made.update(some, False)
        finished = at == len(tokens)
        outputs.append((made.get_next_output_text(finished, True), some, finished))
    return outputs

def read(cls, request, outputs, cut, stop=None):
    parser = cls(tokenizer, request.tools, chat_template_kwargs={}, model_config=None)
    reader = ChatReader(Asked(request, {}), parser)
    if cut:
        params = SamplingParams(skip_special_tokens=False, stop=stop)
        reader.begin(TokenTexts(tokenizer, PROMPT, params))
    whole, calls = Piece(), {}
    for text, tokens, finished in outputs:
        whole.join(reader.take(text, tokens, PROMPT, finished))
    for call in whole.calls:
        one = calls.setdefault(call.index, ["", ""])
        one[0] += call.name
        one[1] += call.arguments
    return [whole.text, whole.reasoning, list(calls.values())]

def forever(size):
    while True:
        yield size

def at_random(rng):
    while True:
        yield rng.choice((1, 1, 1, 2, 3, 7))

def try_family(tool, reasoning, called):
    cls = ParserManager.get_parser(tool, reasoning, enable_auto_tools=True, model_name="m")
    given = {"tools": [{"type": "function", "function": TOOL}]} if tool else {}
    request = ChatCompletionRequest(model="m", messages=[], **given)
    thought = THOUGHTS.get(reasoning, "<think>{}</think>").format(THOUGHT) if reasoning else ""
    text = thought + ("".join(CALLS[tool]) if called else ANSWER)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    right = read(cls, request, detokenized(tokens, forever(1)), cut=False)
    found = {"right": right, "lost": 0, "wrong": [], "late": []}
    splits = [forever(n) for n in (1, 2, 3, 5, 16, 1000)]
    splits += [at_random(random.Random(seed)) for seed in range(20)]
    for sizes in splits:
        outputs = detokenized(tokens, sizes)
        got = read(cls, request, outputs, cut=True)
        found["wrong"] += [got] if got != right else []
        found["lost"] += read(cls, request, outputs, cut=False) != right
    for stop in ("~~~~", "<thi\n~~~~~~~~~~~~~~~~"):
        for sizes in (forever(1), forever(3), at_random(random.Random(1))):
            got = read(cls, request, detokenized(tokens, sizes, stop), cut=True, stop=stop)
            found["late"] += [got] if got != right else []
    return found

found = {}
for tool, reasoning in dict.fromkeys((f.tool_call_parser, f.reasoning_parser) for f in FAMILIES):
    if tool in ELSEWHERE:
        continue
    for called in (False, True) if tool else (False,):
        found[f"{tool} {reasoning} {called}"] = try_family(tool, reasoning, called)
print("RESULT" + json.dumps(found), flush=True)
"""


@pytest.fixture(scope="module")
def found(with_teacher: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return with_teacher(_SCRIPT)


def test_how_tokens_are_put_together_changes_nothing(found: dict[str, Any]) -> None:
    assert len(found) > 30
    assert {name: one["wrong"][:1] for name, one in found.items() if one["wrong"]} == {}


def test_text_that_comes_later_than_its_tokens_changes_nothing(found: dict[str, Any]) -> None:
    assert {name: one["late"][:1] for name, one in found.items() if one["late"]} == {}


def test_parsers_that_lose_text_of_several_tokens_are_still_there(found: dict[str, Any]) -> None:
    """Else nothing needs to be cut."""
    lost = {name.split()[1] for name, one in found.items() if one["lost"]}
    assert {"deepseek_r1", "granite"} <= lost


def test_the_texts_are_read_as_what_they_are(found: dict[str, Any]) -> None:
    """So that the same for all outputs is not the same nonsense."""
    for name, one in found.items():
        tool, _, called = name.split()
        text, _, calls = one["right"]
        if called == "False":
            assert text.endswith("The answer: here, 42 😀. Done: ok"), name
            assert calls == [], name
        elif (tool, name.split()[1]) != ("granite", "granite"):  # reads no calls behind a thought
            assert {call[0] for call in calls} == {"lookup"}, name
            assert all('"age": 42' in call[1] for call in calls), name
