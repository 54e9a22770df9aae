"""A Responses body as the chat body that means the same, and its items as they are kept.

Everything behind the parser (features, templates, the student, the replica) then knows one kind of
conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field, TypeAdapter

from deployments.gateway.bodies.generating import SamplingFields, dump
from deployments.gateway.bodies.parsing import check_body
from deployments.gateway.bodies.requests import ChatBody
from deployments.gateway.bodies.responses import (
    AllowedTools,
    CallItem,
    CallOutputItem,
    Item,
    MessageItem,
    NamedChoice,
    Part,
    ReasoningItem,
    ResponsesBody,
)

_Message = dict[str, Any]
_Kept = dict[str, Any]
_SAMPLING = set(SamplingFields.model_fields)
_ITEMS = TypeAdapter(list[Item])


class ResponsesChat(ChatBody):
    """The chat body of a Responses request. ``asked``: the request itself, which its answer
    repeats; ``items``: the whole conversation before the answer."""

    asked: ResponsesBody = Field(exclude=True)
    items: list[Item] = Field(exclude=True)


def chat_body(body: ResponsesBody, earlier: Sequence[Item]) -> ResponsesChat:
    """The same request in the words of chat. ``earlier``: the items that it goes on from.

    Raises:
        BadRequestError: it goes beyond a bound of the chat body.
    """
    items = [*earlier, *_input(body)]
    messages = [{"role": "system", "content": body.instructions}] if body.instructions else []
    fields: dict[str, Any] = {
        "model": body.model,
        "messages": messages + messages_of(items),
        "stream": body.stream,
        "max_completion_tokens": body.max_output_tokens,
        "logprobs": body.wants_logprobs,
        "top_logprobs": body.top_logprobs or None,
        "parallel_tool_calls": body.parallel_tool_calls,
        "response_format": _format(body),
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
        "include_reasoning": body.include_reasoning,
        "structured_outputs": dump(body.structured_outputs) or None,
        "metadata": body.metadata,
        "user": body.user,
        "cache_salt": body.cache_salt,
        "chat_template_kwargs": body.chat_template_kwargs,
        "asked": body,
        "items": items,
    }
    fields |= _tools(body) | body.model_dump(include=_SAMPLING, exclude_unset=True)
    return check_body(ResponsesChat, {name: v for name, v in fields.items() if v is not None})


def _input(body: ResponsesBody) -> Sequence[Item]:
    if isinstance(body.input, str):
        return [MessageItem(role="user", content=body.input)]
    return body.input


def _tools(body: ResponsesBody) -> dict[str, Any]:
    if not body.tools:
        return {}
    choice, tools = body.tool_choice, body.tools
    told: Any = choice
    if isinstance(choice, AllowedTools):
        allowed = {named.name for named in choice.tools}
        tools = [tool for tool in tools if tool.name in allowed]
        told = choice.mode
    elif isinstance(choice, NamedChoice):
        told = {"type": "function", "function": {"name": choice.name}}
    functions = [tool.model_dump(exclude={"type"}, exclude_none=True) for tool in tools]
    return {
        "tools": [{"type": "function", "function": function} for function in functions],
        "tool_choice": told,
    }


def _format(body: ResponsesBody) -> dict[str, Any] | None:
    wanted = body.text.format if body.text else None
    if wanted is None or wanted.type != "json_schema":
        return {"type": wanted.type} if wanted else None
    schema = wanted.model_dump(by_alias=True, exclude_none=True, exclude={"type"})
    return {"type": "json_schema", "json_schema": schema}


def messages_of(items: Sequence[Item]) -> list[_Message]:
    """The items as turns: reasoning, text and calls that follow one another are one turn of the
    model."""
    messages: list[_Message] = []
    for item in items:
        if isinstance(item, CallOutputItem):
            told = {"role": "tool", "tool_call_id": item.call_id}
            messages.append({**told, "content": _content(item.output)})
        elif isinstance(item, MessageItem):
            _add_message(messages, item)
        elif isinstance(item, CallItem):
            function = {"name": item.name, "arguments": item.arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            _own_turn(messages).setdefault("tool_calls", []).append(call)
        elif item.text:
            messages.append({"role": "assistant", "reasoning": item.text})
    return messages


def _add_message(messages: list[_Message], item: MessageItem) -> None:
    content = _content(item.content)
    thought = messages and messages[-1].keys() == {"role", "reasoning"}
    if item.role == "assistant" and thought:
        messages[-1]["content"] = content
    else:
        messages.append({"role": item.role, "content": content})


def _own_turn(messages: list[_Message]) -> _Message:
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant"})
    return messages[-1]


def _content(content: str | list[Part]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [_part(part) for part in content]


def _part(part: Part) -> dict[str, Any]:
    if part.type == "input_image":
        url = {"url": part.image_url} | ({"detail": part.detail} if part.detail else {})
        return {"type": "image_url", "image_url": url}
    if part.type == "input_audio":
        return {"type": "input_audio", "input_audio": part.input_audio}
    return {"type": "text", "text": part.refusal if part.type == "refusal" else part.text}


def kept_items(items: Sequence[Item], name: str) -> list[_Kept]:
    """The items as they are kept and listed. ``name``: makes ids for those that have none."""
    return [_kept(item, f"{name}_{number}") for number, item in enumerate(items)]


def read_items(kept: Sequence[_Kept]) -> list[Item]:
    """The items again."""
    return _ITEMS.validate_python(kept)


def _kept(item: Item, name: str) -> _Kept:
    if isinstance(item, MessageItem):
        kind = "output_text" if item.role == "assistant" else "input_text"
        parts = [{"type": kind, "text": item.content}]
        if isinstance(item.content, list):
            parts = [part.model_dump(exclude_none=True) for part in item.content]
        content = [_listed_part(part) for part in parts]
        told: _Kept = {"type": "message", "role": item.role, "content": content}
        return {"id": item.id or f"msg_{name}", **told, "status": "completed"}
    told = item.model_dump(exclude_none=True)
    prefix = {CallItem: "fc", CallOutputItem: "fco", ReasoningItem: "rs"}[type(item)]
    return {**told, "id": item.id or f"{prefix}_{name}", "status": "completed"}


def _listed_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "output_text":
        return {"annotations": [], **part}
    if part["type"] == "input_image":
        return {"detail": "auto", **part}
    return part
