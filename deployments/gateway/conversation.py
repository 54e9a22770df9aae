"""A chat request as a chat template sees it: plain messages, tools and arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.gateway.chat_templates import ChatTemplate, Message

#: Kinds of content parts that are text, with the field that holds it.
TEXT_PARTS: Mapping[str, str] = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
# Fields of OpenAI's and vLLM's parts that a template is not shown; others it may ask for.
_PART_FIELDS = frozenset(
    {
        "type",
        "text",
        "refusal",
        "thinking",
        "closed",
        "data",
        "file",
        "name",
        "uuid",
        "prompt_cache_breakpoint",
        "image_url",
        "image_pil",
        "image_embeds",
        "input_audio",
        "audio_url",
        "audio_embeds",
        "video_url",
        "video_embeds",
    }
)


@dataclass(frozen=True)
class Conversation:
    """Everything that decides on the token ids of a chat prompt.

    ``messages`` as OpenAI's body has them, without nulls. ``arguments`` are variables for the
    template (``chat_template_kwargs`` and ``reasoning_effort``); those it does not read are
    ignored. ``add_special_tokens``: the tokenizer's own special tokens in addition to the
    template's.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False

    def content_size(self) -> int:
        """Characters of the messages' contents."""
        return sum(sum(map(len, _contents(message))) for message in self.messages)

    def text_size(self) -> int:
        """About how many characters there are to render: decides whether a thread is worth it."""
        size = sum(_size(message) for message in self.messages)
        if self.tools:
            size += len(json.dumps(self.tools))
        return size


def _size(message: Mapping[str, Any]) -> int:
    texts = [message.get("reasoning") or message.get("reasoning_content"), *_contents(message)]
    calls = message.get("tool_calls") or ()
    arguments = [str(call["function"].get("arguments", "")) for call in calls]
    return sum(len(text or "") for text in [*texts, *arguments])


def _contents(message: Mapping[str, Any]) -> list[str]:
    content = message.get("content") or ""
    return [content] if isinstance(content, str) else [p.get("text") or "" for p in content]


def shape_messages(conversation: Conversation, template: ChatTemplate) -> list[Message]:
    """The messages in the shape that ``template`` takes."""
    shaped = [_shape(message, template.takes_parts) for message in conversation.messages]
    if not template.knows_developer and any(m["role"] == "developer" for m in shaped):
        shaped = _with_one_system(shaped)
    return [_with_every_reasoning_name(message) for message in shaped]


def _shape(message: Mapping[str, Any], takes_parts: bool) -> Message:
    role = message["role"]
    content: Any = _parts(message.get("content"))
    if not takes_parts or (role == "tool" and all(p["type"] == "text" for p in content)):
        content = "\n".join(part["text"] for part in content)
    shaped: Message = {"role": role, "content": content}
    if role == "assistant":
        if message.get("tool_calls"):
            shaped["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
        reasoning = message.get("reasoning")
        if reasoning is None:
            reasoning = message.get("reasoning_content")
        if reasoning is not None:
            shaped |= {"reasoning": reasoning, "reasoning_content": reasoning}
    if role == "tool" and message.get("tool_call_id") is not None:
        shaped["tool_call_id"] = message["tool_call_id"]
    if message.get("name") is not None:
        shaped["name"] = message["name"]
    return shaped


def _parts(content: Any) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [_text_part(part) for part in content]


def _text_part(part: Mapping[str, Any]) -> dict[str, Any]:
    more = {name: value for name, value in part.items() if name not in _PART_FIELDS}
    return {"type": "text", "text": part[TEXT_PARTS[part["type"]]], **more}


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    # The order of the keys shows where a template prints a call as JSON.
    function = {"arguments": None, "name": None, **call["function"]}
    function["arguments"] = parse_arguments(function["arguments"])
    others = {name: value for name, value in call.items() if name != "function"}
    return {"id": None, "function": function, "type": None, **others}


def parse_arguments(arguments: Any) -> dict[str, Any]:
    """A tool call's arguments as an object, which templates iterate over.

    What is no JSON object becomes an empty one. The model wrote it in an earlier turn, so a
    refusal would end the conversation for good.
    """
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return {}
    return arguments if isinstance(arguments, dict) else {}


def _with_one_system(messages: list[Message]) -> list[Message]:
    """Developers become system, and all system messages one at the front.

    Many templates accept a system message at the first place only.
    """
    renamed = [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]
    system = [m for m in renamed if m["role"] == "system"]
    if len(system) == 1 and renamed[0]["role"] == "system":
        return renamed
    texts = [_joined(m["content"]) for m in system]
    merged = {"role": "system", "content": "\n\n".join(text for text in texts if text)}
    return [merged, *(m for m in renamed if m["role"] != "system")]


def _joined(content: str | list[dict[str, str]]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _with_every_reasoning_name(message: Message) -> Message:
    # Templates read reasoning under three names.
    reasoning = message.get("reasoning")
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}
