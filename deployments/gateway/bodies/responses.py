"""OpenAI's Responses body as weir accepts it: ``POST /v1/responses``.

What it means is in :mod:`deployments.gateway.bodies.from_responses`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from deployments.gateway.bodies.generating import Salt, SamplingFields, Top
from deployments.gateway.bodies.known_fields import HINTS, REFUSED
from deployments.gateway.bodies.messages import FunctionDefinition
from deployments.gateway.bodies.output_forms import Structure
from deployments.gateway.bodies.parsing import (
    Body,
    Json,
    Name,
    Positive,
    ToolList,
    check_choice,
    refuse,
)

#: Turns and calls of one request, those of earlier responses included.
MAX_ITEMS = 4096
_Id = Annotated[str, Field(max_length=256)]
_Text = Annotated[str, Field(min_length=1)]

#: The kinds of part, with the field that each needs.
_PARTS: dict[str, str] = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "refusal": "refusal",
    "summary_text": "text",
    "reasoning_text": "text",
    "input_image": "image_url",
    "input_audio": "input_audio",
}


class Part(Body):
    """A part of an item's content. What a server adds to its own parts comes back with the next
    request, so other fields are ignored."""

    model_config = ConfigDict(extra="ignore")
    place: ClassVar = "input[].content[]"
    ignored: ClassVar = frozenset(
        {"annotations", "logprobs", "parsed", "prompt_cache_breakpoint", "file_id"}
    )

    type: Name
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    input_audio: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _is_known(self) -> Part:
        needed = _PARTS.get(self.type)
        if needed is None:
            refuse(f"parts of type {self.type!r} are not supported", "type")
        if getattr(self, needed) is None:
            refuse(f"a part of type {self.type!r} needs it", needed)
        return self


def _kind_of_content(value: Any) -> str:
    return "<parts>" if isinstance(value, list) else "<text>"


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[Part], Field(fail_fast=True), Tag("<parts>")],
    Discriminator(_kind_of_content),
]


class _Item(Body):
    """An item of a conversation. What a server adds to its own items comes back with the next
    request, so other fields are ignored."""

    model_config = ConfigDict(extra="ignore")
    place: ClassVar = "input[]"
    ignored: ClassVar = frozenset(
        {
            *("agent", "caller", "created_by", "encrypted_content", "namespace", "phase"),
            *("parsed_arguments", "status"),
        }
    )

    id: _Id | None = None


class MessageItem(_Item):
    """A turn of text."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class CallItem(_Item):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: _Id
    name: Name
    arguments: str = ""


class CallOutputItem(_Item):
    """What a call came to."""

    type: Literal["function_call_output"]
    call_id: _Id
    output: Content


class ReasoningItem(_Item):
    """What the model thought before it answered."""

    type: Literal["reasoning"]
    summary: Annotated[list[Part], Field(fail_fast=True)] = Field(default_factory=list)
    content: Annotated[list[Part], Field(fail_fast=True)] | None = None

    @property
    def text(self) -> str:
        """The reasoning itself, or else its summary; empty where it is encrypted."""
        return "".join(part.text or "" for part in self.content or self.summary)


class _OtherItem(ReasoningItem):
    """An item of a kind that is not supported: refused by its name."""

    type: Any

    @model_validator(mode="after")
    def _is_refused(self) -> _OtherItem:
        told = "send the item itself" if self.type == "item_reference" else "not supported"
        refuse(f"items of type {str(self.type)[:40]!r}: {told}", "type")


_KINDS = {
    "message": "<message>",
    "function_call": "<call>",
    "function_call_output": "<output>",
    "reasoning": "<reasoning>",
}


def _kind_of_item(value: Any) -> str:
    given = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return _KINDS.get(str(given or "message"), "<other>")


Item = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[CallItem, Tag("<call>")]
    | Annotated[CallOutputItem, Tag("<output>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")]
    | Annotated[_OtherItem, Tag("<other>")],
    Discriminator(_kind_of_item),
]
Items = Annotated[list[Item], Field(fail_fast=True, min_length=1, max_length=MAX_ITEMS)]
Input = Annotated[
    Annotated[_Text, Tag("<text>")] | Annotated[Items, Tag("<items>")],
    Discriminator(lambda value: "<items>" if isinstance(value, list) else "<text>"),
]


class FunctionTool(FunctionDefinition):
    """A function that the model may call."""

    place: ClassVar = "tools[]"

    type: Literal["function"]

    @model_validator(mode="before")
    @classmethod
    def _is_a_function(cls, data: Any) -> Any:
        given = data.get("type") if isinstance(data, dict) else None
        if isinstance(given, str) and given != "function":
            refuse(f"the tool {given[:40]!r} is not supported; send function tools", "type")
        return data


class NamedChoice(Body):
    """Forces one tool."""

    place: ClassVar = "tool_choice"

    type: str
    name: Name | None = None

    @model_validator(mode="after")
    def _is_a_function(self) -> NamedChoice:
        if self.type != "function":
            refuse(f"the tool {self.type[:40]!r} is not supported", "type")
        if self.name is None:
            refuse("this field is required", "name")
        return self


class AllowedTools(Body):
    """Some of the tools only. ``mode``: whether one of them must be called."""

    place: ClassVar = "tool_choice"

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedChoice], Field(fail_fast=True, min_length=1, max_length=1024)]


def _kind_of_choice(value: Any) -> str:
    if not isinstance(value, dict):
        return "<word>"
    return "<some>" if value.get("type") == "allowed_tools" else "<one>"


Choice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<word>")]
    | Annotated[NamedChoice, Tag("<one>")]
    | Annotated[AllowedTools, Tag("<some>")],
    Discriminator(_kind_of_choice),
]


class TextFormat(Body):
    """Free text, any JSON object, or JSON after a schema."""

    place: ClassVar = "text.format"

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Name | None = None
    description: str | None = None
    schema_: Json | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> TextFormat:
        for field, value in (("name", self.name), ("schema", self.schema_)):
            if self.type == "json_schema" and value is None:
                refuse("type 'json_schema' needs it", field)
        return self


class TextConfig(Body):
    """Which form the answer must have."""

    place: ClassVar = "text"
    ignored: ClassVar = frozenset({"verbosity"})

    format: TextFormat | None = None


class Reasoning(Body):
    """How much the model is to think. It is not summarized: a client gets the reasoning itself."""

    place: ClassVar = "reasoning"
    ignored: ClassVar = frozenset({"summary", "generate_summary", "context", "mode"})

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class StreamOptions(Body):
    """Hints on how events are sent. The last one always has the token counts."""

    place: ClassVar = "stream_options"
    ignored: ClassVar = frozenset({"include_obfuscation", "include_usage"})


LOGPROBS = "message.output_text.logprobs"
_Included = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
_SAME_AS_CHAT = (
    "priority",
    "kv_transfer_params",
    "ec_transfer_params",
    "vllm_xargs",
    "chat_template",
    "request_id",
    "mm_processor_kwargs",
    "media_io_kwargs",
)


class ResponsesBody(SamplingFields):
    """``POST /v1/responses``, with vLLM's further fields for sampling."""

    ignored: ClassVar = HINTS | {
        "access_programs",
        "image",
        "max_tool_calls",
    }
    refused: ClassVar = {name: REFUSED[name] for name in _SAME_AS_CHAT} | {
        "conversation": "conversations are not supported; send previous_response_id",
        "prompt": "stored prompts are not supported; send instructions and input",
        "context_management": "not supported; send a shorter input",
        "moderation": "not supported",
        "messages": "send input",
        "max_tokens": "send max_output_tokens",
        "max_completion_tokens": "send max_output_tokens",
        "response_format": "send text.format",
        "n": "a response is one answer",
        "previous_input_messages": "send input",
        "enable_response_messages": "not supported; GET the response's input_items",
    }
    harmless: ClassVar = {
        "context_management": ([],),
        "n": (1,),
        "enable_response_messages": (False,),
    }

    model: Name
    input: Input
    cache_salt: Salt | None = None
    instructions: str | None = None
    previous_response_id: _Id | None = None
    store: bool = True
    background: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_output_tokens: Positive | None = None
    top_logprobs: Top | None = None
    tools: ToolList[FunctionTool] | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    include_reasoning: bool = True
    structured_outputs: Structure | None = None
    include: Annotated[list[_Included], Field(max_length=16)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    chat_template_kwargs: Json | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> ResponsesBody:
        if self.background and not self.store:
            refuse("needs store: true", "background")
        if self.background and self.stream:
            refuse("a response in the background cannot be streamed; poll it", "stream")
        if self.stream_options is not None and not self.stream:
            refuse("only for stream: true", "stream_options")
        self._check_tool_choice()
        return self

    def _check_tool_choice(self) -> None:
        choice = self.tool_choice
        if choice in (None, "none", "auto"):
            return
        known = {tool.name for tool in self.tools or ()}
        named = choice.name if isinstance(choice, NamedChoice) else None
        check_choice(known, named, "tool_choice.name")
        if isinstance(choice, AllowedTools):
            for number, tool in enumerate(choice.tools):
                if tool.name not in known:
                    refuse(f"number {number} is no tool in tools", "tool_choice.tools")

    @property
    def wants_logprobs(self) -> bool:
        """Whether each token comes with its log-probability."""
        return LOGPROBS in (self.include or ()) or bool(self.top_logprobs)
