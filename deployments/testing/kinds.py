"""Every kind of request that clients make, with what a right answer looks like.

A new kind enters the contract suite (``tests/contract``) and the fault schedules by one more entry
in :data:`KINDS`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deployments import wire
from deployments.stub_generator import (
    STRUCTURED_TOKENS,
    rendered_prompt,
    stub_answer,
)

ANSWER_TOKENS = 12


@dataclass(frozen=True, slots=True)
class Said:
    """One choice of an answer, as a client put it together. ``calls``: names and arguments;
    ``scored``: the texts of the tokens with log-probabilities."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    finish_reason: str | None = None
    scored: tuple[str, ...] = ()
    vector: tuple[float, ...] = ()


@dataclass(slots=True)
class _Choice:
    text: str = ""
    calls: list[list[str]] = field(default_factory=list)
    finish_reason: str | None = None
    scored: list[str] = field(default_factory=list)

    def said(self) -> Said:
        calls = tuple((name, arguments) for name, arguments in self.calls)
        return Said(self.text, calls, self.finish_reason, tuple(self.scored))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client received: each choice, the token counts, and the error if there was one.
    ``complete``: it came to its proper end."""

    said: tuple[Said, ...] = ()
    usage: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    complete: bool = False


Read = Callable[[bytes, bool], Answer]
Right = Callable[[Any, str], Said]


@dataclass(frozen=True, slots=True)
class Kind:
    """``body`` makes the request body number *n*; bodies of different numbers share no prompt.
    ``right`` says what a choice is, from what its engine was asked and from the prompt as text.
    ``choices``: how many answers there are. ``limit_field`` bounds each answer's tokens.
    ``asks_usage``: fields that make a stream tell its token counts."""

    name: str
    path: str
    body: Callable[[int], dict[str, Any]]
    read: Read
    right: Right
    streams: bool = True
    choices: int = 1
    limit_field: str = "max_tokens"
    asks_usage: Mapping[str, Any] = field(
        default_factory=lambda: {"stream_options": {"include_usage": True}}
    )


# Reading answers.


def read_chat(raw: bytes, streamed: bool) -> Answer:
    """Of ``/v1/chat/completions``."""
    return _read_events(raw, _chat_event) if streamed else _read_whole(raw, _chat_choice)


def read_completion(raw: bytes, streamed: bool) -> Answer:
    """Of ``/v1/completions``."""
    if streamed:
        return _read_events(raw, _completion_choice)
    return _read_whole(raw, _completion_choice)


def read_embeddings(raw: bytes, streamed: bool) -> Answer:
    """Of ``/v1/embeddings``."""
    body = json.loads(raw)
    if "error" in body:
        return Answer(error=body["error"])
    said = tuple(Said(vector=tuple(item["embedding"])) for item in body["data"])
    return Answer(said, body["usage"], complete=True)


def read_response(raw: bytes, streamed: bool) -> Answer:
    """Of ``/v1/responses``. What the deltas say must be what the response at the end says."""
    if not streamed:
        body = json.loads(raw)
        return Answer(error=body["error"]) if body["error"] else _ended_response(body)
    told = ""
    calls: dict[int, list[str]] = {}
    for part in _events(raw):
        event = json.loads(part.partition("\ndata: ")[2])
        kind, place = event["type"], event.get("output_index", 0)
        if kind == "response.output_text.delta":
            told += event["delta"]
        elif kind == "response.output_item.added" and event["item"]["type"] == "function_call":
            calls[place] = [event["item"]["name"], ""]
        elif kind == "response.function_call_arguments.delta":
            calls[place][1] += event["delta"]
        elif kind == "error":
            return Answer((_response_said(told, calls, None),), error=event)
        elif kind == "response.failed":
            return Answer((_response_said(told, calls, None),), error=event["response"]["error"])
        elif kind in ("response.completed", "response.incomplete"):
            ended = _ended_response(event["response"])
            said = _response_said(told, calls, ended.said[0].finish_reason)
            assert ended.said == (said,), "the deltas say something else than the response"
            return ended
    return Answer((_response_said(told, calls, None),))


def _ended_response(body: dict[str, Any]) -> Answer:
    text, calls = "", {}
    for place, item in enumerate(body["output"]):
        if item["type"] == "message":
            text += "".join(part["text"] for part in item["content"])
        elif item["type"] == "function_call":
            calls[place] = [item["name"], item["arguments"]]
    ended = {"completed": "stop", "incomplete": "length"}[body["status"]]
    told = body["usage"]
    usage = {
        "prompt_tokens": told["input_tokens"],
        "completion_tokens": told["output_tokens"],
        "total_tokens": told["total_tokens"],
        "prompt_tokens_details": told["input_tokens_details"],
    }
    return Answer((_response_said(text, calls, ended),), usage, complete=True)


def _response_said(text: str, calls: dict[int, list[str]], ended: str | None) -> Said:
    made = tuple((name, arguments) for name, arguments in calls.values())
    return Said(text, made, "tool_calls" if made and ended == "stop" else ended)


#: Anthropic's reasons for an end in OpenAI's words.
_REASONS = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls"}


def read_message(raw: bytes, streamed: bool) -> Answer:
    """Of ``/v1/messages``."""
    if not streamed:
        body = json.loads(raw)
        return Answer(error=body["error"]) if "error" in body else _message(body, complete=True)
    message: dict[str, Any] = {"content": [], "stop_reason": None}
    error, complete = None, False
    for text in _events(raw):
        name, _, data = text.partition("\ndata: ")
        event = json.loads(data)
        assert name == f"event: {event['type']}"
        match event["type"]:
            case "message_start":
                message |= event["message"]
            case "content_block_start":
                message["content"].append(event["content_block"] | {"json": ""})
            case "content_block_delta":
                delta, block = event["delta"], message["content"][event["index"]]
                block["text"] = block.get("text", "") + delta.get("text", "")
                block["json"] += delta.get("partial_json", "")
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
            case "message_stop":
                complete = True
            case "error":
                error = event["error"]
    return replace(_message(message, complete), error=error)


def _message(told: Mapping[str, Any], complete: bool) -> Answer:
    blocks = told["content"]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = tuple(
        (block["name"], block["json"] if "json" in block else json.dumps(block["input"]))
        for block in blocks
        if block["type"] == "tool_use"
    )
    said = Said(text, calls, _REASONS.get(told["stop_reason"], told["stop_reason"]))
    usage = told.get("usage", {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0})
    counts = {
        "prompt_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"],
        "completion_tokens": usage["output_tokens"],
    }
    return Answer((said,), counts, complete=complete)


def _events(raw: bytes) -> list[str]:
    """The events of a stream, without comments. A client that left may have a part of an event,
    which says nothing yet."""
    parts = raw.decode("utf-8", "ignore").split("\n\n")[:-1]
    return [part for part in parts if not part.startswith(":")]


def _read_events(raw: bytes, add: Callable[[_Choice, dict[str, Any]], None]) -> Answer:
    choices: dict[int, _Choice] = {}
    usage = error = None
    complete = False
    for line in _events(raw):
        told = line.removeprefix("data: ")
        if told == "[DONE]":
            complete = True
            continue
        event = json.loads(told)
        error = event.get("error") or error
        usage = event.get("usage") or usage
        for choice in event.get("choices", ()):
            add(choices.setdefault(choice["index"], _Choice()), choice)
    said = tuple(choices[index].said() for index in sorted(choices))
    return Answer(said, usage, error, complete)


def _read_whole(raw: bytes, add: Callable[[_Choice, dict[str, Any]], None]) -> Answer:
    body = json.loads(raw)
    if "error" in body:
        return Answer(error=body["error"])
    said = []
    for choice in body["choices"]:
        read = _Choice()
        add(read, choice)
        said.append(read.said())
    return Answer(tuple(said), body["usage"], complete=True)


def _chat_event(choice: _Choice, told: dict[str, Any]) -> None:
    delta = told["delta"]
    choice.text += delta.get("content") or ""
    for call in delta.get("tool_calls") or ():
        function = call["function"]
        if call["index"] == len(choice.calls):
            choice.calls.append([function["name"], ""])
        choice.calls[call["index"]][1] += function["arguments"]
    _end(choice, told)


def _chat_choice(choice: _Choice, told: dict[str, Any]) -> None:
    message = told["message"]
    choice.text = message["content"] or ""
    choice.calls = [
        [call["function"]["name"], call["function"]["arguments"]]
        for call in message.get("tool_calls") or ()
    ]
    _end(choice, told)


def _completion_choice(choice: _Choice, told: dict[str, Any]) -> None:
    choice.text += told["text"]
    scored = told["logprobs"]
    choice.scored += scored["tokens"] if scored else []
    choice.finish_reason = told["finish_reason"] or choice.finish_reason


def _end(choice: _Choice, told: dict[str, Any]) -> None:
    scored = told["logprobs"]
    choice.scored += [token["token"] for token in scored["content"]] if scored else []
    choice.finish_reason = told["finish_reason"] or choice.finish_reason


# What is right.


def _words(request: wire.Submit, count: int | None = None) -> str:
    prompt = request.prompt or rendered_prompt(request.messages)
    return stub_answer(prompt, count or request.sampling.max_tokens, request.sampling.seed)


def right_text(request: wire.Submit, prompt: str) -> Said:
    """The engine's words."""
    return Said(_words(request), (), "length")


def right_scored(request: wire.Submit, prompt: str) -> Said:
    """The engine's words, each with a log-probability."""
    text = _words(request)
    return Said(text, (), "length", _split(text))


def right_echo(request: wire.Submit, prompt: str) -> Said:
    """The prompt, then the engine's words."""
    return Said(prompt + _words(request), (), "length")


def right_object(request: wire.Submit, prompt: str) -> Said:
    """A JSON object."""
    return Said(_object(request), (), "stop")


def right_call(request: wire.Submit, prompt: str) -> Said:
    """A call of the first tool."""
    assert request.chat is not None
    named = isinstance(request.chat["tool_choice"], dict)
    call = ("weather", _object(request))
    return Said("", (call,), "stop" if named else "tool_calls")


def right_use(request: wire.Submit, prompt: str) -> Said:
    """The same, whether or not it was the only tool allowed."""
    return replace(right_call(request, prompt), finish_reason="tool_calls")


def right_vector(request: wire.Embed, prompt: str) -> Said:
    """Nothing is known of a vector but that it has length 1; see :func:`agrees`."""
    return Said(vector=(1.0,))


def agrees(said: Said, right: Said) -> bool:
    """Whether a choice is what it should be."""
    if right.vector:
        return math.isclose(sum(value * value for value in said.vector), 1.0, rel_tol=1e-6)
    return said == right


def _object(request: wire.Submit) -> str:
    count = min(request.sampling.max_tokens, STRUCTURED_TOKENS)
    return '{"words": "' + _words(request, count) + '"}'


def _split(text: str) -> tuple[str, ...]:
    return tuple(f"{word} " for word in text.split())


# The kinds.

_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
    }
]
_RESPONSE_TOOLS = [{"type": "function", **_TOOLS[0]["function"]}]
_RESPONSE_SCHEMA = {"type": "json_schema", "name": "words", "schema": {"type": "object"}}
_SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "words", "schema": {"type": "object"}},
}


def _text(number: int) -> str:
    return f"w{number % 400} w{number // 400 % 400} w1 w2 w3"


def _chat(number: int, **fields: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": _text(number)}]
    return {"messages": said, "max_tokens": ANSWER_TOKENS, **fields}


def _prompt(number: int, **fields: Any) -> dict[str, Any]:
    return {"prompt": _text(number), "max_tokens": ANSWER_TOKENS, **fields}


def _tool_round_trip(number: int) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    body = _chat(number, tools=_TOOLS, tool_choice="auto")
    body["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "w7 w8"},
    ]
    return body


def _image(number: int) -> dict[str, Any]:
    url = {"url": f"data:image/png;base64,{number:08d}"}
    parts = [{"type": "text", "text": _text(number)}, {"type": "image_url", "image_url": url}]
    return {"messages": [{"role": "user", "content": parts}], "max_tokens": ANSWER_TOKENS}


def _named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _chat_kind(name: str, right: Right, body: Callable[[int], Any], choices: int = 1) -> Kind:
    return Kind(name, "/v1/chat/completions", body, read_chat, right, choices=choices)


def _completion_kind(name: str, right: Right, body: Callable[[int], Any], choices: int = 1) -> Kind:
    path = "/v1/completions"
    return Kind(name, path, body, read_completion, right, choices=choices)


def _message_kind(name: str, right: Right, **fields: Any) -> Kind:
    def body(number: int) -> dict[str, Any]:
        return {**_chat(number), "system": "w4 w5", **fields}

    return Kind(name, "/v1/messages", body, read_message, right, asks_usage={})


_MESSAGE_TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}


def _message_round_trip(number: int) -> dict[str, Any]:
    call = {"type": "tool_use", "id": "c1", "name": "weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "w7 w8"}
    body = _chat(number, tools=[_MESSAGE_TOOL])
    body["messages"] += [
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    return body


def _response(number: int, **fields: Any) -> dict[str, Any]:
    return {"input": _text(number), "max_output_tokens": ANSWER_TOKENS, **fields}


def _response_round_trip(number: int) -> dict[str, Any]:
    said = {"role": "user", "content": [{"type": "input_text", "text": _text(number)}]}
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "w7 w8"}
    return _response(number, tools=_RESPONSE_TOOLS) | {"input": [said, call, output]}


def _response_kind(name: str, right: Right, body: Callable[[int], Any]) -> Kind:
    return Kind(
        name,
        "/v1/responses",
        body,
        read_response,
        right,
        limit_field="max_output_tokens",
        asks_usage={},
    )


def _calling(choice: Any) -> Callable[[int], dict[str, Any]]:
    return lambda number: _chat(number, tools=_TOOLS, tool_choice=choice)


KINDS: Sequence[Kind] = (
    _chat_kind("chat", right_text, _chat),
    _chat_kind("tools-none", right_text, _calling("none")),
    _chat_kind("tools-auto", right_text, _calling("auto")),
    _chat_kind("tools-required", right_call, _calling("required")),
    _chat_kind("tools-named", right_call, _calling(_named("weather"))),
    _chat_kind("tool-result", right_text, _tool_round_trip),
    _chat_kind("json-schema", right_object, lambda n: _chat(n, response_format=_SCHEMA)),
    _chat_kind("logprobs", right_scored, lambda n: _chat(n, logprobs=True, top_logprobs=2)),
    _chat_kind("n-3", right_text, lambda n: _chat(n, n=3, seed=7), choices=3),
    _chat_kind("image", right_text, _image),
    _completion_kind("completion", right_text, _prompt),
    _completion_kind("completion-logprobs", right_scored, lambda n: _prompt(n, logprobs=1)),
    _completion_kind("echo", right_echo, lambda n: _prompt(n, echo=True)),
    _completion_kind("ids", right_text, lambda n: _prompt(n) | {"prompt": [6 + n % 400, 7, 8, 9]}),
    _completion_kind(
        "three-prompts",
        right_text,
        lambda n: _prompt(n) | {"prompt": [f"{_text(n)} w{i}" for i in (11, 12, 13)]},
        choices=3,
    ),
    _message_kind("messages", right_text),
    _message_kind("messages-stop", right_text, stop_sequences=["never"]),
    _message_kind("messages-any", right_use, tools=[_MESSAGE_TOOL], tool_choice={"type": "any"}),
    _message_kind(
        "messages-tool",
        right_use,
        tools=[_MESSAGE_TOOL],
        tool_choice={"type": "tool", "name": "weather"},
    ),
    Kind(
        "messages-result",
        "/v1/messages",
        _message_round_trip,
        read_message,
        right_text,
        asks_usage={},
    ),
    _response_kind("response", right_text, _response),
    _response_kind(
        "response-tools",
        right_use,
        lambda n: _response(n, tools=_RESPONSE_TOOLS, tool_choice="required"),
    ),
    _response_kind("response-tool-result", right_text, _response_round_trip),
    _response_kind(
        "response-json-schema",
        right_object,
        lambda n: _response(n, text={"format": _RESPONSE_SCHEMA}),
    ),
    Kind(
        "embeddings",
        "/v1/embeddings",
        lambda n: {"input": [_text(n), f"{_text(n)} w4"]},
        read_embeddings,
        right_vector,
        streams=False,
        choices=2,
    ),
)
