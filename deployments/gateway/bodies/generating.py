"""What the bodies of chat and plain completions share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from deployments.gateway.bodies.known_fields import HARMLESS, HINTS, REFUSED
from deployments.gateway.bodies.output_forms import Format, Structure
from deployments.gateway.bodies.parsing import (
    Body,
    Count,
    Name,
    TokenId,
    Whole,
    refuse,
    whole,
)
from deployments.wire import Repetition

_INT64 = 2**63 - 1
#: Prompts and choices of one request, whatever ``server.max_streams_per_request`` allows.
MAX_CHOICES = MAX_PROMPTS = 2048
#: What OpenAI and vLLM generate for /v1/completions where the client sets no limit.
COMPLETION_TOKENS = 16
#: Entries of ``logit_bias``.
MAX_BIASES = 1024
#: Characters of a stop string, and of a bad word, which the replica turns into tokens.
MAX_STOP_CHARACTERS = 4096
MAX_WORD_CHARACTERS = 256


def _keeps_some(tokens: int) -> int:
    if tokens == 0:
        refuse("keeps nothing; send -1 for what the context holds")
    return tokens


Prompt = str | list[int]
Top = Annotated[int, Field(ge=0, le=20, strict=True), BeforeValidator(whole)]
ThinkingTokens = Annotated[Whole, Field(ge=-1, le=2**31 - 1)]
# -1: as many of the prompt's tokens as the context holds.
Kept = Annotated[Whole, Field(ge=-1, le=2**31 - 1), AfterValidator(_keeps_some)]
#: What parts a client's own prompts from each other in caches.
Salt = Annotated[str, Field(min_length=1, max_length=256)]
# The engine compares so many tokens at each step.
Small = Annotated[Whole, Field(ge=0, le=1024)]
#: Entries of ``allowed_token_ids``.
MAX_ALLOWED_TOKENS = 65_536


class StreamOptions(Body):
    """``include_usage``: one more chunk at the end, with the token counts."""

    place: ClassVar = "stream_options"
    ignored: ClassVar = frozenset({"include_obfuscation"})

    include_usage: bool = False
    continuous_usage_stats: bool = False


def _kind_of_prompt(value: Any) -> str:
    if not isinstance(value, list):
        return "<text>"
    first = value[0] if value else None
    if isinstance(first, str):
        return "<texts>"
    return "<lists>" if isinstance(first, list) else "<ids>"


_Text = Annotated[str, Field(min_length=1)]
_Ids = Annotated[list[TokenId], Field(fail_fast=True, min_length=1)]
Prompts = Annotated[
    Annotated[_Text, Tag("<text>")]
    | Annotated[_Ids, Tag("<ids>")]
    | Annotated[list[_Text], Field(fail_fast=True, max_length=MAX_PROMPTS), Tag("<texts>")]
    | Annotated[list[_Ids], Field(fail_fast=True, max_length=MAX_PROMPTS), Tag("<lists>")],
    Discriminator(_kind_of_prompt),
]
Inputs = Annotated[
    Annotated[_Text, Tag("<text>")]
    | Annotated[_Ids, Tag("<ids>")]
    | Annotated[list[_Text], Field(fail_fast=True, max_length=2048), Tag("<texts>")]
    | Annotated[list[_Ids], Field(fail_fast=True, max_length=2048), Tag("<lists>")],
    Discriminator(_kind_of_prompt),
]
_StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
_Word = Annotated[str, Field(min_length=1, max_length=MAX_WORD_CHARACTERS)]
_Stop = Annotated[
    Annotated[_StopText, Tag("<text>")]
    | Annotated[list[_StopText], Field(max_length=16), Tag("<texts>")],
    Discriminator(lambda value: "<texts>" if isinstance(value, list) else "<text>"),
]


def _few_biases(value: Any) -> Any:
    # Before each of them is looked at.
    if isinstance(value, dict) and len(value) > MAX_BIASES:
        refuse(f"has {len(value)} entries; at most {MAX_BIASES} are accepted")
    return value


_Bias = Annotated[
    dict[Annotated[str, Field(pattern=r"^[0-9]{1,7}$")], Annotated[float, Field(ge=-100, le=100)]],
    BeforeValidator(_few_biases),
]


def as_list(prompt: Any) -> list[Prompt]:
    """One prompt or several as a list."""
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    return list(prompt) if several else [prompt]


class RepetitionFields(Body):
    """When an output that repeats itself is ended, in vLLM's words."""

    place: ClassVar = "repetition_detection"

    max_pattern_size: Small = 0
    min_pattern_size: Small = 0
    min_count: Small = 0

    @model_validator(mode="after")
    def _sizes_agree(self) -> RepetitionFields:
        if self.min_pattern_size > self.max_pattern_size:
            refuse("is more than max_pattern_size", "min_pattern_size")
        if self.max_pattern_size and self.min_count < 2:
            refuse("must be at least 2", "min_count")
        return self


class SamplingFields(Body):
    """How tokens are chosen and where an answer ends, under OpenAI's and vLLM's names. None means
    the model's own default."""

    min_tokens: Count = 0
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[Whole, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    # The engine divides 32-bit logits by it: 1e-46 is zero there, and 1e-38 makes them infinite.
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    seed: Annotated[Whole, Field(ge=-_INT64, le=_INT64)] | None = None
    stop: _Stop | None = None
    stop_token_ids: Annotated[list[Count], Field(max_length=64)] | None = None
    bad_words: Annotated[list[_Word], Field(max_length=128)] | None = None
    allowed_token_ids: (
        Annotated[list[TokenId], Field(fail_fast=True, min_length=1, max_length=MAX_ALLOWED_TOKENS)]
        | None
    ) = None
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    logit_bias: _Bias | None = None
    thinking_token_budget: ThinkingTokens | None = None
    repetition_detection: RepetitionFields | None = None

    @property
    def repetition(self) -> Repetition | None:
        """When an output that repeats itself is ended."""
        wanted = self.repetition_detection
        if wanted is None:
            return None
        return Repetition(wanted.max_pattern_size, wanted.min_pattern_size, wanted.min_count)

    @property
    def thinking_tokens(self) -> int | None:
        """How many tokens the model may think; None: as many as it likes."""
        budget = self.thinking_token_budget
        return None if budget == -1 else budget


class GenerationBody(SamplingFields):
    """What chat and plain completions share."""

    ignored: ClassVar = HINTS
    refused: ClassVar = {name: why for name, why in REFUSED.items() if name != "cache_salt"}
    harmless: ClassVar = HARMLESS

    model: Name
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    n: Annotated[Whole, Field(ge=1, le=MAX_CHOICES)] = 1
    response_format: Format | None = None
    structured_outputs: Structure | None = None
    prompt_logprobs: Top | None = None
    return_tokens_as_token_ids: bool = False
    truncate_prompt_tokens: Kept | None = None
    truncation_side: Literal["left", "right"] | None = None
    echo: bool = False
    return_token_ids: bool = False
    user: Annotated[str, Field(max_length=512)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    store: bool | None = None
    cache_salt: Salt | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        self._check()
        return self

    def _check(self) -> None:
        """Refuse fields that contradict one another."""
        if self.stream_options is not None and not self.stream:
            refuse("only for stream: true", "stream_options")
        if self.stream and self.prompt_logprobs:
            refuse("not available with stream: true", "prompt_logprobs")
        if self.structured_outputs is not None and self._has_format:
            refuse("excludes response_format", "structured_outputs")

    @property
    def stop_list(self) -> list[str] | None:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def max_output_tokens(self) -> int | None:
        """The most tokens of each choice; None: as many as the context holds."""
        return self.max_tokens

    @property
    def token_biases(self) -> dict[int, float] | None:
        """``logit_bias`` by token id."""
        if self.logit_bias is None:
            return None
        return {int(token): bias for token, bias in self.logit_bias.items()}

    @property
    def _has_format(self) -> bool:
        return self.response_format is not None and self.response_format.type != "text"

    def form_fields(self) -> dict[str, Any]:
        """The constraint on the output, in the fields of vLLM's request."""
        fields: dict[str, Any] = {}
        if self._has_format:
            fields["response_format"] = dump(self.response_format)
        if self.structured_outputs is not None:
            fields["structured_outputs"] = dump(self.structured_outputs)
        return fields


def dump(model: BaseModel | None) -> dict[str, Any]:
    """The fields that are given, under the names that clients use."""
    return {} if model is None else model.model_dump(by_alias=True, exclude_none=True)
