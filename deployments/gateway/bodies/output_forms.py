"""Which form the output must have: OpenAI's ``response_format``, vLLM's ``structured_outputs``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from deployments.gateway.bodies.parsing import Body, Json, Name, bounded, refuse


class JsonSchema(Body):
    """A named JSON schema that the answer must follow."""

    place: ClassVar = "response_format.json_schema"

    name: Name
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """Free text, any JSON object, JSON after a schema, or text with structured stretches (either
    ``format``, or ``structures`` that begin at ``triggers``)."""

    place: ClassVar = "response_format"

    type: Literal["text", "json_object", "json_schema", "structural_tag"] = "text"
    json_schema: JsonSchema | None = None
    format: Json | None = None
    structures: list[dict[str, Any]] | None = None
    triggers: list[str] | None = None

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            refuse("type 'json_schema' needs it", "json_schema")
        tagged = self.format is not None or (self.structures is not None and self.triggers)
        if self.type == "structural_tag" and not tagged:
            refuse("type 'structural_tag' needs it", "format")
        return self


_CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")


class StructuredOutputs(Body):
    """One constraint on the output, in vLLM's words."""

    place: ClassVar = "structured_outputs"

    json_: (
        Annotated[
            Annotated[str, Tag("<text>")] | Annotated[dict[str, Any], Tag("<object>")],
            Discriminator(lambda value: "<object>" if isinstance(value, dict) else "<text>"),
        ]
        | None
    ) = Field(default=None, alias="json")
    regex: str | None = None
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | None = None
    disable_any_whitespace: bool | None = None
    disable_additional_properties: bool | None = None
    whitespace_pattern: str | None = None

    @model_validator(mode="after")
    def _is_one_constraint(self) -> StructuredOutputs:
        given = self.model_dump(by_alias=True, exclude_unset=True)
        if sum(name in given for name in _CONSTRAINTS) != 1:
            refuse(f"needs exactly one of {', '.join(_CONSTRAINTS)}")
        return self


def _bounded_form(value: Any) -> Any:
    return bounded(value, around=2)


Format = Annotated[ResponseFormat, BeforeValidator(_bounded_form)]
Structure = Annotated[StructuredOutputs, BeforeValidator(_bounded_form)]
