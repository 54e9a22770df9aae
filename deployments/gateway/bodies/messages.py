"""The turns of a conversation and the tools on offer, as OpenAI's chat body has them.

A client may send back what a server put on a message: fields that say nothing to the model are
ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from deployments.gateway.bodies.parsing import Body, Json, Name, ToolList, refuse
from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.conversation import TEXT_PARTS

#: Kinds of parts that only the model's own processor can read.
OTHER_PARTS = frozenset(
    {
        "image_url",
        "input_image",
        "input_audio",
        "audio_url",
        "video_url",
        "image_embeds",
        "audio_embeds",
        "video_embeds",
    }
)


class ContentPart(BaseModel):
    """A part of a message: text of some kind, or a medium that the model's processor reads."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    type: Name
    text: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain_text(cls, data: Any) -> Any:
        return {"type": "text", "text": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _is_known(self) -> ContentPart:
        field = TEXT_PARTS.get(self.type)
        if field is None and self.type not in OTHER_PARTS:
            refuse(f"unknown kind of part {self.type!r}", "type")
        if field is not None and not isinstance(getattr(self, field, None), str):
            refuse(f"a part of type {self.type!r} needs it", field)
        return self


class FunctionCall(Body):
    """The function that a tool call names, with its arguments as JSON text (or an object)."""

    model_config = ConfigDict(extra="allow")
    place: ClassVar = "messages[].tool_calls[].function"

    name: Name
    arguments: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[dict[str, Any], Tag("<object>")],
        Discriminator(lambda value: "<object>" if isinstance(value, dict) else "<text>"),
    ] = ""


class ToolCall(Body):
    """A tool call of an earlier assistant turn. What a stream adds (``index``) is passed on."""

    model_config = ConfigDict(extra="allow")
    place: ClassVar = "messages[].tool_calls[]"

    id: Annotated[str, Field(max_length=256)]
    type: Literal["function"] = "function"
    function: FunctionCall


Content = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[ContentPart], Field(fail_fast=True), Tag("<parts>")],
    Discriminator(lambda value: "<parts>" if isinstance(value, list) else "<text>"),
]


class ChatMessage(Body):
    """One turn of the conversation."""

    place: ClassVar = "messages[]"
    ignored: ClassVar = frozenset(
        {
            "annotations",
            "audio",
            "refusal",
            "parsed",
            "provider_specific_fields",
            "cache_control",
            "id",
            "timestamp",
            "thinking_blocks",
            "reasoning_details",
            "status",
            "phase",
        }
    )
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True, max_length=128)] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None

    @classmethod
    def _not_known(cls, fields: dict[str, Any], unknown: Unknown | None) -> dict[str, Any]:
        # What tool calls were before they had that name.
        call = fields.pop("function_call", None)
        kept = super()._not_known(fields, unknown)
        if call is not None:
            kept["tool_calls"] = [{"id": "", "type": "function", "function": call}]
        return kept

    @model_validator(mode="after")
    def _says_something(self) -> ChatMessage:
        if self.content is None and self.role != "assistant":
            refuse(f"a message of role {self.role!r} needs content", "content")
        return self

    @property
    def has_other_parts(self) -> bool:
        """Whether a part is not text."""
        content = self.content
        return isinstance(content, list) and any(part.type not in TEXT_PARTS for part in content)


class FunctionDefinition(Body):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    # Frameworks leave notes of their own here, which no model sees.
    model_config = ConfigDict(extra="ignore")
    place: ClassVar = "tools[].function"
    ignored: ClassVar = frozenset({"cache_control", "defer_loading"})

    name: Name
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool on offer."""

    model_config = ConfigDict(extra="ignore")
    place: ClassVar = "tools[]"
    ignored: ClassVar = frozenset({"cache_control", "defer_loading"})

    type: Literal["function"] = "function"
    function: FunctionDefinition

    def described(self) -> dict[str, Any]:
        """The tool as templates and grammars read it: nulls stay, ``strict`` only where given."""
        # By hand: dumping a model copies its schema, and a thousand of them took the loop 70 ms.
        own = self.function
        function: dict[str, Any] = {
            "name": own.name,
            "description": own.description,
            "parameters": own.parameters,
        }
        if own.strict is not None:
            function["strict"] = own.strict
        return {"type": self.type, "function": function}


Tools = ToolList[Tool]


class NamedFunction(Body):
    """Names the function of a named tool choice."""

    place: ClassVar = "tool_choice.function"

    name: Name


class NamedTool(Body):
    """Forces one tool."""

    place: ClassVar = "tool_choice"

    type: Literal["function"] = "function"
    function: NamedFunction


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<word>")]
    | Annotated[NamedTool, Tag("<tool>")],
    Discriminator(lambda value: "<tool>" if isinstance(value, dict) else "<word>"),
]
