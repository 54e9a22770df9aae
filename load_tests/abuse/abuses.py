"""Every abuse: a request that costs its sender little, sent over and over; or connections that are
held open. The first one is none: what the attacker's own process costs the machine."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
_MB = 1_000_000
_BODY_BYTES = 4 * _MB


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent. ``path`` empty: only a connection is opened."""

    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Abuse:
    """``workers`` send ``make(model, number)`` one after the other without a pause. ``slow``: each
    connection is held, and sends a byte of its body every second. ``computes``: nothing is sent,
    the attacker's process only computes."""

    name: str
    make: Callable[[str, int], Request]
    workers: int = 4
    slow: bool = False
    computes: bool = False


def _post(path: str, model: str, **fields: Any) -> Request:
    return Request(path, json.dumps({"model": model, **fields}).encode())


def _chat(model: str, content: Any = "Hello", **fields: Any) -> Request:
    messages = [{"role": "user", "content": content}]
    return _post(CHAT, model, messages=messages, **{"max_tokens": 16, **fields})


def _long_prompt(model: str, number: int) -> Request:
    return _chat(model, "where is my order " * (_BODY_BYTES // 18 - 10))


def _wrong_parts(model: str, number: int) -> Request:
    text = ",".join("0" * (_BODY_BYTES // 2 - 200))
    body = f'{{"model":"{model}","messages":[{{"role":"user","content":[{text}]}}]}}'
    return Request(CHAT, body.encode())


def _many_parts(model: str, number: int) -> Request:
    return _chat(model, [{"type": "text", "text": "x"}] * 30_000)


def _many_messages(model: str, number: int) -> Request:
    return _post(CHAT, model, messages=[{"role": "user", "content": "x" * 900}] * 4_000)


def _deep_json(model: str, number: int) -> Request:
    depth = 100_000
    body = f'{{"model":"{model}","messages":{"[" * depth}{"]" * depth}}}'
    return Request(CHAT, body.encode())


def _schema(model: str, schema: dict[str, Any]) -> Request:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return _chat(model, response_format=form)


def _nested(levels: int, number: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for level in range(levels):
        left = {"type": "object", "properties": {f"a{number}_{level}": schema}}
        schema = {"anyOf": [left, {"type": "integer"}]}
    return schema


def _huge_schema(model: str, number: int) -> Request:
    listed = [f"{number} {each}" for each in range(4_000)]
    return _schema(model, {"type": "object", "properties": {"a": {"enum": listed}}})


def _nested_schema(model: str, number: int) -> Request:
    return _schema(model, _nested(4 + number % 12, number))


def _recursive_schema(model: str, number: int) -> Request:
    return _schema(model, {"$ref": "#"})


def _counting_schema(model: str, number: int) -> Request:
    inner = {"type": "array", "maxItems": 90, "items": {"type": "string", "maxLength": 90}}
    return _schema(model, {"type": "array", "maxItems": 1 + number % 90, "items": inner})


def _nested_regex(model: str, number: int) -> Request:
    times = (100, 20, 12)[number % 3]
    count = f"{{1,{times}}}"
    regex = f"((a{count}){count}b{number}){count}"
    return _chat(model, structured_outputs={"regex": regex})


def _many_streams(model: str, number: int) -> Request:
    prompts = [f"{number} {each} Where is my order" for each in range(64)]
    times = (2, 16)[number % 2]
    return _post(COMPLETIONS, model, prompt=prompts, n=times, max_tokens=128)


def _tool(number: int) -> dict[str, Any]:
    fields = {f"field_{each}": {"type": "string", "description": "x" * 40} for each in range(8)}
    parameters = {"type": "object", "properties": fields}
    return {"type": "function", "function": {"name": f"tool_{number}", "parameters": parameters}}


def _many_tools(model: str, number: int) -> Request:
    return _chat(model, tools=[_tool(each) for each in range((1_000, 5_000)[number % 2])])


def _huge_bias(model: str, number: int) -> Request:
    return _chat(model, logit_bias={str(token): -1.0 for token in range(200_000)})


def _gzip_bomb(model: str, number: int) -> Request:
    return Request(CHAT, gzip.compress(bytes(200 * _MB), 1), {"content-encoding": "gzip"})


def _slow_body(model: str, number: int) -> Request:
    return Request(CHAT, b" " * _BODY_BYTES)


def _connection(model: str, number: int) -> Request:
    return Request("")


ABUSES: tuple[Abuse, ...] = (
    Abuse("no request, a process that computes", _connection, workers=1, computes=True),
    Abuse("4 MB prompt", _long_prompt),
    Abuse("4 MB of wrong parts", _wrong_parts),
    Abuse("30,000 parts", _many_parts),
    Abuse("4,000 messages", _many_messages),
    Abuse("JSON 100,000 deep", _deep_json),
    Abuse("schema of 4,000 words", _huge_schema),
    Abuse("nested schema", _nested_schema),
    Abuse("recursive schema", _recursive_schema),
    Abuse("counts in counts", _counting_schema),
    Abuse("nested regex", _nested_regex),
    Abuse("64 prompts, 2 or 16 choices", _many_streams, workers=2),
    Abuse("thousands of tools", _many_tools),
    Abuse("200,000 biases", _huge_bias),
    Abuse("gzip bomb", _gzip_bomb),
    Abuse("slow bodies", _slow_body, workers=200, slow=True),
    Abuse("idle connections", _connection, workers=1500, slow=True),
)


def named(name: str) -> Abuse:
    """The abuse of that name."""
    return next(abuse for abuse in ABUSES if abuse.name == name)


def bodies(abuse: Abuse, model: str, count: int) -> Iterator[Request]:
    """The first ``count`` requests."""
    return (abuse.make(model, number) for number in range(count))
