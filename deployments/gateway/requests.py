"""OpenAI's request bodies as weir accepts them. Anything else is a 400 that names the field."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from weir.errors import BadRequestError

_INT32 = 2**31 - 1
_INT64 = 2**63 - 1
TokenId = Annotated[int, Field(ge=0, le=_INT32, strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class StreamOptions(_Body):
    """``include_usage``: one more chunk at the end, with the token counts."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class ContentPart(_Part):
    """A part of a message; text parts are joined, other kinds are the model's business."""

    type: Name
    text: str | None = None

    @model_validator(mode="after")
    def _text_has_text(self) -> ContentPart:
        if self.type == "text" and self.text is None:
            raise ValueError("a part of type 'text' needs a text")
        return self


class FunctionCall(_Body):
    """The function that a tool call names, with its arguments as JSON text."""

    name: Name
    arguments: str = ""


class ToolCall(_Body):
    """A tool call of an earlier assistant turn."""

    id: Name
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(_Body):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] | None = None
    tool_call_id: Name | None = None
    refusal: str | None = None
    reasoning_content: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> ChatMessage:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of role {self.role!r} needs content")
        return self


class FunctionDefinition(_Body):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Body):
    """A tool on offer."""

    type: Literal["function"] = "function"
    function: FunctionDefinition


class NamedFunction(_Body):
    """Names the function of a named tool choice."""

    name: Name


class NamedTool(_Body):
    """Forces one tool."""

    type: Literal["function"] = "function"
    function: NamedFunction


class JsonSchema(BaseModel):
    """A named JSON schema that the answer must follow."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())

    name: Name
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(_Body):
    """Free text, any JSON object, or JSON after a schema."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_goes_with_type(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("type 'json_schema' needs a json_schema")
        return self


class GenerationBody(_Body):
    """What chat and plain completions share. None means the model's own default."""

    model: Name
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=0, le=_INT32, strict=True)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=_INT32, strict=True)] = 0
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=_INT32, strict=True)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=-_INT64, le=_INT64, strict=True)] | None = None
    stop: (
        str | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=16)] | None
    ) = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] | None = None
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    n: Annotated[int, Field(ge=1, le=16, strict=True)] = 1
    logit_bias: (
        dict[
            Annotated[str, Field(pattern=r"^[0-9]{1,7}$")], Annotated[float, Field(ge=-100, le=100)]
        ]
        | None
    ) = None
    user: Annotated[str, Field(max_length=512)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    store: bool | None = None
    bad_words: list[str] | None = None
    return_token_ids: bool = False
    prompt_logprobs: int | None = None
    add_special_tokens: bool = True

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> GenerationBody:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only for stream: true")
        if self.stop == "":
            raise ValueError("stop must not be empty")
        return self

    @property
    def stop_list(self) -> list[str] | None:
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def max_output_tokens(self) -> int | None:
        return self.max_tokens


class ChatBody(GenerationBody):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=_INT32, strict=True)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20, strict=True)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> ChatBody:
        if self.add_generation_prompt and self.continue_final_message:
            raise ValueError("continue_final_message needs add_generation_prompt: false")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.tool_choice not in (None, "none") and not self.tools:
            raise ValueError("tool_choice needs tools")
        return self

    @property
    def max_output_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def has_other_parts(self) -> bool:
        return any(_has_other_parts(m) for m in self.messages)

    @property
    def wants_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def wants_prompt_logprobs(self) -> int | None:
        return self.prompt_logprobs

    def chat_fields(self, parses_reasoning: bool = False) -> dict[str, Any] | None:
        asked = (self.tools, self.tool_choice, self.parallel_tool_calls, self.response_format)
        if all(field is None for field in asked):
            return {} if parses_reasoning else None
        names = {"tools", "tool_choice", "parallel_tool_calls", "response_format"}
        return self.model_dump(mode="json", include=names, exclude_none=True, by_alias=True)

    def whole_body(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)


class CompletionBody(GenerationBody):
    """``POST /v1/completions``. One prompt: text, or token ids."""

    prompt: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=64)]
        | Annotated[
            list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=64)
        ]
    )
    echo: bool = False
    suffix: str | None = None
    logprobs: Annotated[int, Field(ge=0, le=20, strict=True)] | None = None
    best_of: Annotated[int, Field(ge=1, le=1, strict=True)] | None = None

    @model_validator(mode="after")
    def _no_suffix(self) -> CompletionBody:
        if self.suffix:
            raise ValueError("suffix is not supported")
        return self

    @property
    def wants_logprobs(self) -> int | None:
        return self.logprobs

    @property
    def wants_prompt_logprobs(self) -> int | None:
        return self.logprobs if self.echo else self.prompt_logprobs

    def chat_fields(self) -> dict[str, Any] | None:
        return None

    @property
    def only_echo(self) -> bool:
        return self.echo and self.max_tokens == 0

    def prompts(self) -> list[str | list[int]]:
        return several(self.prompt)


class EmbeddingBody(_Body):
    """``POST /v1/embeddings``."""

    model: Name
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=2048)]
        | Annotated[
            list[Annotated[list[TokenId], Field(min_length=1)]],
            Field(min_length=1, max_length=2048),
        ]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, strict=True)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None

    def prompts(self) -> list[str | list[int]]:
        return several(self.input)


def several(prompt: Any) -> list[str | list[int]]:
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return [prompt]
    return list(prompt)


BodyT = TypeVar("BodyT", bound=BaseModel)


def parse_body(model: type[BodyT], body: bytes) -> BodyT:
    """Read and check a JSON body.

    Raises:
        BadRequestError: the first thing wrong, with ``param`` naming the field.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _bad_request(error) from None


def _bad_request(error: ValidationError) -> BadRequestError:
    problem = min(error.errors(include_url=False, include_context=False), key=_relevance)
    if problem["type"] == "json_invalid":
        detail = str(problem["msg"]).removeprefix("Invalid JSON: ")
        return BadRequestError(f"The body is not valid JSON: {detail}.", param=None)
    param = _param(problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "unrecognized request argument"
    elif problem["type"] == "missing":
        message = "this field is required"
    where = param or "The body"
    return BadRequestError(f"{where}: {message}.", param=param or None)


def _relevance(problem: Any) -> tuple[int, int]:
    # A wrong value inside a union is reported once per member: the deepest says most.
    return (0 if problem["type"] == "missing" else 1, -len(problem["loc"]))


_UNION_MEMBERS = frozenset({"str", "int", "list", "dict", "function-after", "constrained-str"})


def _param(loc: tuple[int | str, ...]) -> str:
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif "[" in part or part in _UNION_MEMBERS or part[:1].isupper():
            continue  # pydantic names the union member that it tried; clients know no such field
        else:
            path += f".{part}" if path else part
    return path


def _has_other_parts(message: ChatMessage) -> bool:
    content = message.content
    return isinstance(content, list) and any(part.type != "text" for part in content)
