"""Reading answers, as a client would, of each dialect."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from deployments.testing.kinds.kind import Answer, Said


@dataclass(slots=True)
class _Choice:
    text: str = ""
    calls: list[list[str]] = field(default_factory=list)
    finish_reason: str | None = None
    scored: list[str] = field(default_factory=list)

    def said(self) -> Said:
        calls = tuple((name, arguments) for name, arguments in self.calls)
        return Said(self.text, calls, self.finish_reason, tuple(self.scored))


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


def read_scores(raw: bytes, streamed: bool) -> Answer:
    """Of ``/v1/score``."""
    body = json.loads(raw)
    if "error" in body:
        return Answer(error=body["error"])
    listed = body["data"]
    assert [each["index"] for each in listed] == list(range(len(listed)))
    return Answer(tuple(Said(score=each["score"]) for each in listed), body["usage"], complete=True)


def read_ranking(raw: bytes, streamed: bool) -> Answer:
    """Of ``/v1/rerank``: best first there, in the order of the documents here."""
    body = json.loads(raw)
    if "error" in body:
        return Answer(error=body["error"])
    results = body["results"]
    scores = [each["relevance_score"] for each in results]
    assert scores == sorted(scores, reverse=True)
    assert all(each["document"]["text"] for each in results)
    listed = sorted(results, key=lambda each: int(each["index"]))
    said = tuple(Said(score=each["relevance_score"]) for each in listed)
    return Answer(said, body["usage"], complete=True)
