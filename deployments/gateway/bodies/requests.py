"""OpenAI's request bodies as weir accepts them, and what each asks to generate.

Anything unknown is a 400 that names the field, because a misspelled option would otherwise change
the answer without a word.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from deployments.gateway.bodies.generating import (
    COMPLETION_TOKENS,
    MAX_CHOICES,
    GenerationBody,
    Inputs,
    Prompt,
    Prompts,
    Top,
    as_list,
    dump,
)
from deployments.gateway.bodies.known_fields import MEDIA_OPTIONS, REFUSED
from deployments.gateway.bodies.messages import (
    ChatMessage,
    ContentPart,
    NamedTool,
    ToolChoice,
    Tools,
)
from deployments.gateway.bodies.parsing import (
    Json,
    Positive,
    Whole,
    bounded,
    check_choice,
    parse_body,
    refuse,
)
from deployments.gateway.bodies.pooling import PoolingFields
from deployments.gateway.conversation import Conversation

__all__ = [
    "ChatBody",
    "ChatMessage",
    "CompletionBody",
    "ContentPart",
    "EmbeddingBody",
    "GenerationBody",
    "Prompt",
    "parse_body",
]

# Variables of a chat template that the body has fields of its own for, or that are no variables
# but arguments of the renderer.
_RESERVED = frozenset(
    {
        "messages",
        "conversation",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "chat_template",
        "tokenize",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "tokenizer_kwargs",
        "sanitize_control_tokens",
        "self",
    }
)


class ChatBody(GenerationBody):
    """``POST /v1/chat/completions``. Which keys of ``mm_processor_kwargs`` and ``media_io_kwargs``
    may be set, the model's settings say (:mod:`deployments.gateway.media_options`)."""

    refused: ClassVar = {
        name: why for name, why in GenerationBody.refused.items() if name not in MEDIA_OPTIONS
    }

    messages: Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1, max_length=4096)]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    logprobs: bool = False
    top_logprobs: Top | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    include_reasoning: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    documents: (
        Annotated[list[dict[str, str]], Field(max_length=256), BeforeValidator(bounded)] | None
    ) = None
    chat_template_kwargs: Json | None = None
    mm_processor_kwargs: Json | None = None
    media_io_kwargs: Json | None = None

    def _check(self) -> None:
        super()._check()
        if self.add_generation_prompt and self.continue_final_message:
            refuse("needs add_generation_prompt: false", "continue_final_message")
        if self.truncate_prompt_tokens is not None and self.has_other_parts:
            refuse("only a prompt of text can be cut", "truncate_prompt_tokens")
        if self.top_logprobs and not self.logprobs:
            refuse("needs logprobs: true", "top_logprobs")
        for name in self.chat_template_kwargs or ():
            if name in _RESERVED:
                refuse("reserved", f"chat_template_kwargs.{name}")
        self._check_tool_choice()

    def _check_tool_choice(self) -> None:
        choice = self.tool_choice
        if choice in (None, "none"):
            return
        named = choice.function.name if isinstance(choice, NamedTool) else None
        names = {tool.function.name for tool in self.tools or ()}
        check_choice(names, named, "tool_choice.function.name")
        if named is not None and self.structured_outputs is not None:
            refuse("excludes a named tool_choice", "structured_outputs")

    @property
    def max_output_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def wants_logprobs(self) -> int | None:
        """How many likeliest tokens beside each chosen one; 0: the chosen one only."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def wants_prompt_logprobs(self) -> int | None:
        """The same of the prompt's tokens."""
        return self.prompt_logprobs

    @property
    def has_other_parts(self) -> bool:
        """Whether a part of a message is not text, so that only the replica can read it."""
        return any(message.has_other_parts for message in self.messages)

    @property
    def media_options(self) -> dict[str, Any]:
        """How images, audio and video are to be read: the fields of the body that say so."""
        if self.mm_processor_kwargs is None and self.media_io_kwargs is None:
            return {}
        return {name: getattr(self, name) or {} for name in MEDIA_OPTIONS}

    @property
    def echoed_text(self) -> str:
        """What ``echo`` puts in front of the answer: the last message, if the answer has its
        role."""
        last = self.messages[-1]
        answers_as_last = not self.add_generation_prompt or last.role == "assistant"
        if not self.echo or not answers_as_last:
            return ""
        if isinstance(last.content, list):
            return "\n".join(part.text or "" for part in last.content)
        return last.content or ""

    def conversation(self) -> Conversation:
        """What decides on the prompt's token ids."""
        arguments = {
            name: value
            for name, value in (self.chat_template_kwargs or {}).items()
            if value is not None and value != "auto"
        }
        if self.reasoning_effort is not None:
            # Some templates think only where they are told to.
            arguments.setdefault("enable_thinking", self.reasoning_effort != "none")
            arguments["reasoning_effort"] = self.reasoning_effort
        return Conversation(
            messages=[message.model_dump(exclude_none=True) for message in self.messages],
            # With tool_choice "none" too, as vLLM's server does by default.
            tools=[tool.described() for tool in self.tools] if self.tools else None,
            documents=self.documents,
            arguments=arguments,
            add_generation_prompt=self.add_generation_prompt,
            continue_final_message=self.continue_final_message,
            add_special_tokens=self.add_special_tokens,
        )

    def chat_fields(self, parses_reasoning: bool) -> dict[str, Any] | None:
        """What decides on grammar and parsing (:class:`deployments.wire.Submit`, ``chat``).

        None: neither is needed. ``parses_reasoning``: the model has a reasoning parser, which
        then reads every answer.
        """
        fields = self.form_fields()
        choice = self.tool_choice or "auto"
        calls = bool(self.tools) and choice != "none"
        if not fields and not calls and not parses_reasoning:
            return None
        if self.tools:
            fields["tools"] = [tool.described() for tool in self.tools]
            fields["tool_choice"] = choice if isinstance(choice, str) else dump(choice)
            if self.parallel_tool_calls is not None:
                fields["parallel_tool_calls"] = self.parallel_tool_calls
        if not self.include_reasoning:
            fields["include_reasoning"] = False
        if self.reasoning_effort is not None:
            fields["reasoning_effort"] = self.reasoning_effort
        if self.chat_template_kwargs:
            fields["chat_template_kwargs"] = self.chat_template_kwargs
        return fields

    def as_openai(self) -> dict[str, Any]:
        """The whole body, for a replica that renders it (``Submit.messages``)."""
        # Members of unions that a function tells apart come out right, but not without a warning.
        return self.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude_none=True, warnings=False
        )


class CompletionBody(GenerationBody):
    """``POST /v1/completions``. One prompt or several: text, or token ids."""

    prompt: Prompts
    logprobs: Top | None = None
    best_of: Annotated[Whole, Field(ge=1, le=MAX_CHOICES)] | None = None
    add_special_tokens: bool = True

    def _check(self) -> None:
        super()._check()
        if self.best_of is not None and self.best_of != self.n:
            refuse("only a best_of equal to n is supported", "best_of")
        if self.max_tokens == 0 and not self.echo:
            refuse("0 needs echo: true", "max_tokens")

    def prompts(self) -> list[Prompt]:
        """Each prompt, as text or token ids."""
        return as_list(self.prompt)

    @property
    def max_output_tokens(self) -> int:
        return COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def only_scores(self) -> bool:
        """Whether nothing is to be generated: the prompt comes back, with log-probabilities."""
        return self.max_tokens == 0

    @property
    def wants_logprobs(self) -> int | None:
        """How many likeliest tokens beside each chosen one; 0: the chosen one only."""
        return self.logprobs

    @property
    def wants_prompt_logprobs(self) -> int | None:
        """The same of the prompt's tokens: of an echoed prompt they come with the output's."""
        if self.prompt_logprobs is None and self.echo:
            return self.logprobs
        return self.prompt_logprobs

    def chat_fields(self, parses_reasoning: bool) -> dict[str, Any] | None:
        """The constraint on the output; parsers read no plain completion."""
        return self.form_fields() or None


class EmbeddingBody(PoolingFields):
    """``POST /v1/embeddings``."""

    refused: ClassVar = PoolingFields.refused | {
        "embed_dtype": "vectors are 32-bit floats",
        "endianness": "vectors are little-endian",
        "padding": "prompts are not padded",
        "use_activation": "vectors are as the model has them",
        "mm_processor_kwargs": REFUSED["mm_processor_kwargs"],
        "messages": "send input",
    }
    harmless: ClassVar = {
        "embed_dtype": ("float32",),
        "endianness": ("native", "little"),
        "padding": (False,),
        "use_activation": (True,),
    }

    input: Inputs
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Positive | None = None
    add_special_tokens: bool = True

    def prompts(self) -> list[Prompt]:
        """Each input, as text or token ids."""
        return as_list(self.input)
