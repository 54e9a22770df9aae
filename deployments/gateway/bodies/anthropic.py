"""Anthropic's request bodies as weir accepts them: ``/v1/messages`` and its ``/count_tokens``.

What they mean is in :mod:`deployments.gateway.bodies.from_anthropic`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from deployments.gateway.bodies.known_fields import REFUSED
from deployments.gateway.bodies.parsing import (
    Body,
    Count,
    Json,
    Name,
    Positive,
    ToolList,
    Whole,
    check_choice,
    refuse,
)

#: The fields that a content block of each kind needs.
BLOCKS: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "image": ("source",),
    "document": ("source",),
    "search_result": ("title", "content"),
    "tool_reference": ("tool_name",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
    "thinking": ("thinking",),
    "redacted_thinking": (),
}
_MATERIAL = frozenset({"text", "image", "document", "search_result"})
#: The kinds of block that a turn of each role may have.
ALLOWED: dict[str, frozenset[str]] = {
    "system": frozenset({"text"}),
    "user": _MATERIAL | {"tool_result"},
    "assistant": frozenset({"text", "tool_use", "thinking", "redacted_thinking"}),
    "tool_result": _MATERIAL | {"tool_reference"},
    "search_result": frozenset({"text"}),
    "document": frozenset({"text"}),
}

_Id = Annotated[str, Field(max_length=256)]


def _kind_of_content(value: Any) -> str:
    return "<blocks>" if isinstance(value, list) else "<text>"


Content = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list["Block"], Field(fail_fast=True), Tag("<blocks>")],
    Discriminator(_kind_of_content),
]


class Source(Body):
    """Where an image or a document is."""

    model_config = ConfigDict(extra="ignore")
    place: ClassVar = "messages[].content[].source"

    type: Name
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: Content | None = None

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Source:
        needs = {"base64": "data", "text": "data", "url": "url", "content": "content"}
        field = needs.get(self.type)
        if field is not None and getattr(self, field) is None:
            refuse(f"a source of type {self.type!r} needs it", field)
        check_blocks("document", self.content, "content")
        return self


class Block(Body):
    """One block of a turn's content. What a server adds to its own blocks comes back with the next
    request, so other fields are ignored."""

    model_config = ConfigDict(extra="ignore")
    place: ClassVar = "messages[].content[]"
    ignored: ClassVar = frozenset(
        {"cache_control", "signature", "data", "is_error", "caller", "context", "media_type"}
    )

    type: Name
    text: str | None = None
    thinking: str | None = None
    source: (
        Annotated[
            Annotated[str, Tag("<text>")] | Annotated[Source, Tag("<source>")],
            Discriminator(lambda value: "<text>" if isinstance(value, str) else "<source>"),
        ]
        | None
    ) = None
    title: str | None = None
    id: _Id | None = None
    name: Name | None = None
    input: dict[str, Any] | None = None
    tool_use_id: _Id | None = None
    tool_name: Name | None = None
    content: Content | None = None
    citations: Any = None

    @model_validator(mode="after")
    def _is_known(self) -> Block:
        needed = BLOCKS.get(self.type)
        if needed is None:
            refuse(f"blocks of type {self.type!r} are not supported", "type")
        for field in needed:
            if getattr(self, field) is None:
                refuse(f"a block of type {self.type!r} needs it", field)
        if self.type in ALLOWED:
            check_blocks(self.type, self.content, "content")
        if isinstance(self.citations, dict) and self.citations.get("enabled"):
            refuse("citations are not supported", "citations")
        if self.type in ("image", "document"):
            self._check_source()
        return self

    def _check_source(self) -> None:
        kinds = ("base64", "url") if self.type == "image" else ("text", "content")
        if not isinstance(self.source, Source):
            refuse("must be an object", "source")
        if self.source.type not in kinds:
            refuse(
                f"{self.source.type!r} is not supported in a block of type {self.type!r}; "
                f"supported: {', '.join(kinds)}",
                "source.type",
            )


def check_blocks(role: str, content: str | list[Block] | None, field: str) -> None:
    """Refuse blocks that have no place there."""
    if not isinstance(content, list):
        return
    for number, block in enumerate(content):
        if block.type not in ALLOWED[role]:
            refuse(f"block {number} is of type {block.type!r}, which has no place here", field)


class Turn(Body):
    """One turn of the conversation. A server's whole message may come back as one."""

    model_config = ConfigDict(extra="ignore")
    place: ClassVar = "messages[]"
    ignored: ClassVar = frozenset(
        {
            *("id", "type", "model", "stop_reason", "stop_sequence", "stop_details", "usage"),
            *("container", "context_management", "diagnostics"),
        }
    )

    role: Literal["user", "assistant", "system"]
    content: Content

    @model_validator(mode="after")
    def _has_its_own_blocks(self) -> Turn:
        check_blocks(self.role, self.content, "content")
        if self.role == "user" and not self.content:
            refuse("a user's turn needs content", "content")
        return self


class AnthropicTool(Body):
    """A tool on offer. Hints on how it is loaded, cached and streamed change nothing."""

    # Clients leave notes of their own here, which no model sees.
    model_config = ConfigDict(extra="ignore")
    place: ClassVar = "tools[]"
    ignored: ClassVar = frozenset(
        {
            *("allowed_callers", "cache_control", "defer_loading", "eager_input_streaming"),
            "input_examples",
        }
    )

    type: str = "custom"
    name: Name
    description: str | None = None
    input_schema: Json | None = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _is_the_clients_own(self) -> AnthropicTool:
        if self.type != "custom":
            refuse(
                f"{self.type!r} is a tool of Anthropic's; send a tool with an input_schema", "type"
            )
        if self.input_schema is None:
            refuse("this field is required", "input_schema")
        return self


class AnthropicChoice(Body):
    """Whether and which tools are to be called."""

    place: ClassVar = "tool_choice"

    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool = False

    @model_validator(mode="after")
    def _names_a_tool(self) -> AnthropicChoice:
        if (self.type == "tool") != (self.name is not None):
            refuse("needed with type 'tool', and only there", "name")
        return self


class Thinking(Body):
    """Whether the model is to reason first. How much (``budget_tokens``) is its own decision."""

    model_config = ConfigDict(extra="ignore")
    place: ClassVar = "thinking"

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Positive | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Body):
    """JSON after a schema."""

    model_config = ConfigDict(extra="ignore")
    place: ClassVar = "output_config.format"

    type: Literal["json_schema"]
    schema_: Json = Field(alias="schema")


class OutputConfig(Body):
    """How much effort, and which form the answer must have."""

    place: ClassVar = "output_config"
    ignored: ClassVar = frozenset({"task_budget"})

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


#: Hints that change nothing about the answer, and settings of services that weir is not.
_HINTS = frozenset(
    {
        "betas",
        "billing_policy",
        "cache_control",
        "container",
        "context_management",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "service_tier",
        "speed",
        "user_profile_id",
        "workspace_id",
    }
)
_SAME_AS_CHAT = (
    "priority",
    "cache_salt",
    "kv_transfer_params",
    "ec_transfer_params",
    "vllm_xargs",
    "chat_template",
)
_REFUSED = {name: REFUSED[name] for name in _SAME_AS_CHAT} | {
    "mcp_servers": "servers of tools are not supported; send tools",
    "thread": "conversations are not stored; send all messages",
    "n": "a message is one answer",
    "stop": "send stop_sequences",
    "max_tokens_to_sample": "send max_tokens",
}


class CountTokensBody(Body):
    """``POST /v1/messages/count_tokens``: everything that decides on the prompt."""

    ignored: ClassVar = _HINTS | {"compaction"}
    refused: ClassVar = _REFUSED
    harmless: ClassVar = {"mcp_servers": ([],)}

    model: Name
    messages: Annotated[list[Turn], Field(fail_fast=True, min_length=1, max_length=4096)]
    system: Content | None = None
    tools: ToolList[AnthropicTool] | None = None
    tool_choice: AnthropicChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    chat_template_kwargs: Json | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> CountTokensBody:
        check_blocks("system", self.system, "system")
        choice = self.tool_choice
        if choice is not None and choice.type in ("any", "tool"):
            names = {tool.name for tool in self.tools or ()}
            check_choice(names, choice.name, "tool_choice.name")
        return self


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: each for name, each in value.items() if each is not None}
    return value


class MessagesBody(CountTokensBody):
    """``POST /v1/messages``. ``metadata``: ``user_id``, and what features are looked up by.
    ``min_tokens``, ``ignore_eos`` and ``skip_special_tokens`` are vLLM's."""

    ignored: ClassVar = _HINTS
    refused: ClassVar = _REFUSED | {"compaction": "summaries are not supported"}

    max_tokens: Positive
    stream: bool = False
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[Whole, Field(ge=-1, le=2**31 - 1)] | None = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    stop_sequences: (
        Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=16)] | None
    ) = None
    metadata: (
        Annotated[dict[str, str], Field(max_length=16), BeforeValidator(_without_nulls)] | None
    ) = None


Block.model_rebuild()
