"""What the dialects that generate text have in common: sampling fields, and events' framing."""

from __future__ import annotations

from typing import Any

import orjson

from deployments import wire
from deployments.gateway.bodies import ChatBody, CompletionBody
from deployments.gateway.bodies.generating import GenerationBody
from deployments.gateway.outputs import Counts
from weir.errors import WeirError, error_body

DONE = b"data: [DONE]\n\n"


def submission(
    body: ChatBody | CompletionBody,
    prompt: list[int],
    max_tokens: int,
    reasons: bool,
    messages: dict[str, Any] | None = None,
) -> wire.Submit:
    """See :meth:`deployments.gateway.dialects.base.Dialect.submission`. ``messages``: the body, if
    the replica has to render it."""
    return wire.Submit(
        0,
        "",
        prompt,
        sampling(body, max_tokens),
        logprobs=body.wants_logprobs,
        prompt_logprobs=body.wants_prompt_logprobs,
        chat=body.chat_fields(reasons),
        unparsed=isinstance(body, CompletionBody),
        messages=messages,
    )


def sampling(body: GenerationBody, max_tokens: int) -> wire.Sampling:
    """The body's sampling fields for an output of at most ``max_tokens``."""
    return wire.Sampling(
        max_tokens=max_tokens,
        min_tokens=min(body.min_tokens, max_tokens),
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        repetition_penalty=body.repetition_penalty,
        seed=body.seed,
        stop=body.stop_list,
        stop_token_ids=body.stop_token_ids,
        ignore_eos=body.ignore_eos,
        skip_special_tokens=body.skip_special_tokens,
        include_stop_str_in_output=body.include_stop_str_in_output,
        logit_bias=body.token_biases,
        bad_words=body.bad_words,
    )


def data(event: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(event) + b"\n\n"


class EventHead:
    """The constant part of an answer's events, rendered once: id, object, created, model."""

    def __init__(self, body: GenerationBody, answer_id: str, kind: str, created_s: int) -> None:
        self.fields = {"id": answer_id, "object": kind, "created": created_s, "model": body.model}
        self.opening = b"data: " + orjson.dumps(self.fields)[:-1] + b',"choices":['

    def usage_event(self, counts: Counts) -> bytes:
        """The event that ``stream_options.include_usage`` asks for."""
        return self.opening + b'],"usage":' + orjson.dumps(counts.usage()) + b"}\n\n"


class Tally:
    """Counts of a stream so far, for ``stream_options.continuous_usage_stats``."""

    def __init__(self, body: GenerationBody, prompt_tokens: int) -> None:
        options = body.stream_options
        self.wanted = bool(options and options.include_usage and options.continuous_usage_stats)
        self._prompt_tokens = prompt_tokens
        self._output_tokens = 0

    def add(self, tokens: int) -> dict[str, object]:
        """The usage object after so many more tokens."""
        self._output_tokens += tokens
        return Counts(self._prompt_tokens, 0, self._output_tokens).usage()


def wants_usage(body: GenerationBody) -> bool:
    """Whether the stream is to end with its token counts."""
    return bool(body.stream_options and body.stream_options.include_usage)


def error_event(error: WeirError) -> bytes:
    """An error in the middle of a stream, in OpenAI's shape."""
    return data(error_body(error))


def token_bytes(text: str) -> list[int]:
    """A token's text as OpenAI lists its bytes."""
    return list(text.encode("utf-8", "replace"))
