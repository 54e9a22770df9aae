"""What the dialects that generate text have in common: sampling fields, and events' framing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from deployments import wire
from deployments.gateway.bodies import ChatBody, CompletionBody
from deployments.gateway.bodies.generating import GenerationBody
from deployments.gateway.encoding import Encoding
from deployments.gateway.outputs import Counts
from weir.errors import BadRequestError, WeirError, error_body

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
        allowed_token_ids=body.allowed_token_ids,
        spaces_between_special_tokens=body.spaces_between_special_tokens,
        thinking_token_budget=body.thinking_tokens,
        repetition_detection=body.repetition,
    )


def data(event: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(event) + b"\n\n"


class EventHead:
    """The constant part of an answer's events, rendered once: id, object, created, model."""

    def __init__(self, body: GenerationBody, answer_id: str, kind: str, created_s: int) -> None:
        self.fields: dict[str, Any] = {
            "id": answer_id,
            "object": kind,
            "created": created_s,
            "model": body.model,
        }
        self._last = self._opening()
        if wants_usage(body):
            # OpenAI's chunks have the field as soon as the last one is to have a value in it.
            self.fields["usage"] = None
        self.opening = self._opening()

    def _opening(self) -> bytes:
        return b"data: " + orjson.dumps(self.fields)[:-1] + b',"choices":['

    def usage_event(self, counts: Counts) -> bytes:
        """The event that ``stream_options.include_usage`` asks for."""
        return self._last + b'],"usage":' + orjson.dumps(counts.usage()) + b"}\n\n"


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


def token_name(scored: wire.Scored, by_id: bool) -> str:
    """A token as its text, or as its id in vLLM's spelling (``return_tokens_as_token_ids``)."""
    return f"token_id:{scored.id}" if by_id else scored.token


def prompt_logprobs(scored: Sequence[wire.Scored]) -> list[dict[str, Any] | None]:
    """vLLM's shape: per prompt token a mapping from token id, None for the first."""
    positions: list[dict[str, Any] | None] = []
    for token in scored:
        if token.logprob is None:
            positions.append(None)
            continue
        listed = [token, *(t for t in token.top if t.id != token.id)]
        positions.append(
            {
                str(t.id): {"logprob": t.logprob, "rank": t.rank, "decoded_token": t.token}
                for t in listed
            }
        )
    return positions


def uncut(body: ChatBody | CompletionBody, encoding: Encoding) -> Encoding:
    """Encodes prompts that are cut to length afterwards (:func:`cut`), however long they are.

    Raises:
        BadRequestError: more are to be kept than the context holds beside the answer.
    """
    room, most = _room(body, encoding), body.truncate_prompt_tokens
    if encoding.context and most is not None and most > room:
        raise BadRequestError(
            f"truncate_prompt_tokens: beside the answer this model's context holds {room} tokens.",
            param="truncate_prompt_tokens",
        )
    return encoding.unbounded()


def cut(
    body: ChatBody | CompletionBody, encoding: Encoding, prompts: list[list[int]]
) -> list[list[int]]:
    """The tokens of each prompt that the body wants kept. -1: as many as the context holds."""
    most = body.truncate_prompt_tokens
    if most is None or (most < 0 and not encoding.context):
        return prompts
    side = body.truncation_side or encoding.encoder.truncation_side
    kept = most if most > 0 else max(1, _room(body, encoding))
    return [ids[-kept:] if side == "left" else ids[:kept] for ids in prompts]


def _room(body: ChatBody | CompletionBody, encoding: Encoding) -> int:
    return encoding.context - max(1, body.max_output_tokens or 1)
