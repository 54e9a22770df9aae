"""An Anthropic body as the chat body that means the same.

Everything behind the parser (features, templates, the student, the replica) then knows one kind of
conversation.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

from deployments.gateway.bodies.anthropic import (
    AnthropicChoice,
    AnthropicTool,
    Block,
    CountTokensBody,
    MessagesBody,
    OutputFormat,
    Source,
    Turn,
)
from deployments.gateway.bodies.parsing import check_body
from deployments.gateway.bodies.requests import ChatBody
from weir.errors import BadRequestError

_Message = dict[str, Any]
_Part = dict[str, Any]
# A client's note to Anthropic, different in each request. In a prompt it would keep everything
# behind it from being found in the cache.
_NOT_FOR_THE_MODEL = "x-anthropic-billing-header"


def chat_body(body: CountTokensBody) -> ChatBody:
    """The same request in OpenAI's words.

    Raises:
        BadRequestError: it goes beyond a bound of the chat body.
    """
    messages = _messages(body)
    if not messages:
        raise BadRequestError("messages: nothing in them is for the model.", param="messages")
    continues = _is_begun_answer(messages[-1])
    choice = body.tool_choice
    fields: dict[str, Any] = {
        "model": body.model,
        "messages": messages,
        "add_generation_prompt": not continues,
        "continue_final_message": continues,
        "tools": [_tool(tool) for tool in body.tools] if body.tools else None,
        "tool_choice": _choice(choice) if choice is not None and body.tools else None,
        "chat_template_kwargs": body.chat_template_kwargs,
        "response_format": _format(body),
    }
    if choice is not None and choice.disable_parallel_tool_use:
        fields["parallel_tool_calls"] = False
    fields |= _reasoning(body, fields)
    if isinstance(body, MessagesBody):
        fields |= _sampling(body)
    return check_body(ChatBody, {name: v for name, v in fields.items() if v is not None})


def _sampling(body: MessagesBody) -> dict[str, Any]:
    return {
        "stream": body.stream,
        "max_tokens": body.max_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "min_tokens": body.min_tokens,
        "ignore_eos": body.ignore_eos,
        "skip_special_tokens": body.skip_special_tokens,
        "stop": body.stop_sequences or None,
        "metadata": body.metadata,
    }


def _reasoning(body: CountTokensBody, fields: dict[str, Any]) -> dict[str, Any]:
    """What is not said is the model's own habit."""
    effort = body.output_config.effort if body.output_config else None
    thinking = body.thinking
    if thinking is None:
        return {"reasoning_effort": effort}
    if thinking.type == "disabled":
        return {"reasoning_effort": "none"}
    given = fields["chat_template_kwargs"] or {}
    return {
        "reasoning_effort": effort,
        "chat_template_kwargs": {"enable_thinking": True, **given},
        "include_reasoning": thinking.display != "omitted",
    }


def _format(body: CountTokensBody) -> dict[str, Any] | None:
    wanted: OutputFormat | None = body.output_format
    if body.output_config is not None and body.output_config.format is not None:
        wanted = body.output_config.format
    if wanted is None:
        return None
    schema = {"name": "answer", "schema": wanted.schema_}
    return {"type": "json_schema", "json_schema": schema}


def _tool(tool: AnthropicTool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
        "strict": tool.strict,
    }
    return {"type": "function", "function": function}


def _choice(choice: AnthropicChoice) -> Any:
    if choice.type == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.type == "any" else choice.type


def _messages(body: CountTokensBody) -> list[_Message]:
    """Turns of one role that follow one another are one turn, as they are to Anthropic's models."""
    opening = [] if body.system is None else [Turn(role="system", content=body.system)]
    messages: list[_Message] = []
    for role, turns in itertools.groupby([*opening, *body.messages], lambda turn: turn.role):
        blocks = [block for turn in turns for block in _blocks(turn.content)]
        if role == "user":
            messages += _user(blocks)
        elif role == "assistant":
            messages.append(_assistant(blocks))
        elif parts := [p for p in _parts(blocks) if not p["text"].startswith(_NOT_FOR_THE_MODEL)]:
            # Few templates know system messages after the first; a developer's are moved there
            # where the template does not know them either.
            role = "developer" if messages else "system"
            messages.append({"role": role, "content": _content(parts)})
    return messages


def _blocks(content: str | list[Block]) -> list[Block]:
    return [Block(type="text", text=content)] if isinstance(content, str) else content


def _user(blocks: list[Block]) -> list[_Message]:
    """Tool results first, each a message of its own, then the rest. Few templates take images in
    a tool's message, so they follow with the rest."""
    messages: list[_Message] = []
    rest: list[_Part] = []
    for block in blocks:
        if block.type != "tool_result":
            continue
        parts = _parts(_blocks(block.content or ""))
        texts = [part for part in parts if part["type"] == "text"]
        rest += [part for part in parts if part["type"] != "text"]
        content = _content(texts)
        messages.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": content})
    rest += _parts(block for block in blocks if block.type != "tool_result")
    if rest:
        messages.append({"role": "user", "content": _content(rest)})
    return messages


def _assistant(blocks: list[Block]) -> _Message:
    # The text was one piece before blocks of other kinds were taken out of it.
    text = "".join(block.text or "" for block in blocks if block.type == "text")
    reasoning = "".join(block.thinking or "" for block in blocks if block.type == "thinking")
    calls = [_call(block) for block in blocks if block.type == "tool_use"]
    message: _Message = {"role": "assistant", "content": text or None}
    if reasoning:
        message["reasoning"] = reasoning
    if calls:
        message["tool_calls"] = calls
    return message


def _is_begun_answer(last: _Message) -> bool:
    """Whether the answer is to go on behind a text that the client has begun it with."""
    return bool(last["role"] == "assistant" and last["content"] and "tool_calls" not in last)


def _call(block: Block) -> dict[str, Any]:
    function = {"name": block.name, "arguments": json.dumps(block.input)}
    return {"id": block.id, "type": "function", "function": function}


def _content(parts: list[_Part]) -> str | list[_Part]:
    if not parts:
        return ""
    first = parts[0]
    return first["text"] if len(parts) == 1 and first["type"] == "text" else parts


def _parts(blocks: Iterable[Block]) -> list[_Part]:
    return [part for block in blocks for part in _material(block)]


def _material(block: Block) -> list[_Part]:
    """A block that the model reads, as parts of a chat message."""
    source = block.source
    if block.type == "image" and isinstance(source, Source):
        url = source.url
        if source.type == "base64":
            url = f"data:{source.media_type or 'image/jpeg'};base64,{source.data}"
        return [{"type": "image_url", "image_url": {"url": url}}]
    titled = [_text(block.title)] if block.title else []
    if block.type == "document" and isinstance(source, Source):
        content = source.content if source.type == "content" else source.data
        return [*titled, *_parts(_blocks(content or ""))]
    if block.type == "search_result":
        return [*titled, *_parts(_blocks(block.content or ""))]
    return [_text(block.tool_name or block.text or "")]


def _text(text: str) -> _Part:
    return {"type": "text", "text": text}
