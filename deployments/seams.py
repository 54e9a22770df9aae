"""Where a stream goes on that another replica began: what its tokens mean, and what of that the
client has not been sent yet.

The ids are run through a detokenizer that begins at the original prompt's end, and through the
model's parsers, one by one, as they were when they were generated. So a character whose bytes are
split, a stop string or a tool call that lies across the seam is read as if there were none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vllm.v1.engine.detokenizer import IncrementalDetokenizer

from deployments import wire
from deployments.chats import ChatReader, Piece


class Delivered:
    """Takes from the front of an output what the client already has."""

    def __init__(self, resume: wire.Resume) -> None:
        self._text = resume.text
        self._reasoning = resume.reasoning
        self._calls = list(resume.calls)
        self._announced = len(resume.calls)

    def cut(self, piece: Piece) -> Piece:
        """What is new in ``piece``, the next one of the whole output."""
        text, self._text = _cut(piece.text, self._text)
        reasoning, self._reasoning = _cut(piece.reasoning, self._reasoning)
        return Piece(text, reasoning, [call for call in map(self._cut_call, piece.calls) if call])

    def _cut_call(self, call: wire.CallDelta) -> wire.CallDelta | None:
        if call.index >= self._announced:
            return call
        arguments, self._calls[call.index] = _cut(call.arguments, self._calls[call.index])
        return wire.CallDelta(call.index, arguments) if arguments else None


def _cut(text: str, owed: int) -> tuple[str, int]:
    return text[owed:], max(0, owed - len(text))


@dataclass(frozen=True, slots=True)
class Replay:
    """What the resumed ``tokens`` mean. ``detokenizer`` goes on behind them; ``new`` is what the
    client has not got of it. ``finish_reason`` is None unless they already end the answer."""

    tokens: Sequence[int]
    detokenizer: IncrementalDetokenizer
    new: Piece
    finish_reason: str | None
    stop_reason: int | str | None


def replay(
    tokenizer: Any,
    engine_request: Any,
    resume: wire.Resume,
    delivered: Delivered,
    reader: ChatReader | None,
    max_model_len: int,
) -> Replay:
    """Run the resumed tokens through detokenizer and parsers. ``engine_request`` is vLLM's request
    with the original prompt alone."""
    prompt, params = engine_request.prompt_token_ids, engine_request.sampling_params
    detokenizer = IncrementalDetokenizer.from_new_request(tokenizer, engine_request)
    new, reason, stop = Piece(), None, None
    for count, token in enumerate(resume.tokens, 1):
        reason, stop = _ending(params, token, count, len(prompt), max_model_len)
        if matched := detokenizer.update([token], reason == "stop"):
            reason, stop = "stop", matched
        finished = reason is not None
        text = detokenizer.get_next_output_text(finished, delta=True)
        piece = reader.take(text, [token], prompt, finished) if reader else Piece(text)
        new.join(delivered.cut(piece))
        if finished:
            break
    return Replay(resume.tokens, detokenizer, new, reason, stop)


class TakingUp:
    """Has an engine client's output processor go on behind resumed tokens.

    This must be so before the engine gets the request: it may answer while the client still waits
    to have sent it. So the state is prepared as the processor makes it, which vLLM does first.
    """

    def __init__(self, processor: Any) -> None:
        self._states: dict[str, Any] = processor.request_states
        self._replays: dict[str, Replay] = {}
        self._add = processor.add_request
        processor.add_request = self._add_prepared

    @contextmanager
    def of(self, request_id: str, replayed: Replay | None) -> Iterator[None]:
        """While the request with this id is added; without a replay nothing is prepared."""
        if replayed is not None:
            self._replays[request_id] = replayed
        try:
            yield
        finally:
            self._replays.pop(request_id, None)

    def _add_prepared(self, request: Any, *args: Any, **kwargs: Any) -> None:
        self._add(request, *args, **kwargs)
        replayed = self._replays.get(request.external_req_id)
        if replayed is None:
            return
        state = self._states[request.request_id]
        state.detokenizer = replayed.detokenizer
        state.sent_tokens_offset = len(replayed.tokens)
        if state.logprobs_processor.logprobs is not None:
            # By these it finds the beginning of a character that the next token ends.
            state.logprobs_processor.logprobs.extend({t: None} for t in replayed.tokens[-4:])


def _ending(
    params: Any, token: int, count: int, prompt_tokens: int, max_model_len: int
) -> tuple[str | None, int | None]:
    """Whether the ``count``-th token ends the answer: vLLM's rules (``check_stop``)."""
    if count < params.min_tokens:
        return None, None
    if token == params.eos_token_id and not params.ignore_eos:
        return "stop", None
    if token in (params.stop_token_ids or ()):
        return "stop", token
    if count >= params.max_tokens or prompt_tokens + count >= max_model_len:
        return "length", None
    return None, None
