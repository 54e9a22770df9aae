"""Turns vLLM's outputs of one request into the wire's messages, and keeps its counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from deployments import wire
from deployments.chats import ChatReader, Piece
from deployments.scoring import Decode, scored_output, scored_prompt
from deployments.seams import Delivered
from deployments.streams import CannotDoError, Put
from deployments.working import told_work
from weir.errors import OverloadedError
from weir.logs import stack_of

_LOG = logging.getLogger("weir.replica")


#: In the transfer parameters: when the blocks were kept, in seconds since the epoch.
_KEPT_AT = "weir_kept_at"


def kept_blocks(params: Mapping[str, Any], epoch_s: float) -> bytes:
    """What the answering replica is to be told, from an engine's transfer parameters."""
    return msgspec.json.encode({**params, _KEPT_AT: epoch_s})


def fresh_params(blocks: bytes, epoch_s: float, fresh_s: float) -> dict[str, Any] | None:
    """The transfer parameters of :func:`kept_blocks`; None where the blocks were kept more than
    ``fresh_s`` seconds ago: who has kept them may have given their place to another prompt by now,
    and nothing would say so."""
    params: dict[str, Any] = msgspec.json.decode(blocks)
    kept_at: float = params.pop(_KEPT_AT, epoch_s)
    return params if epoch_s - kept_at <= fresh_s else None


class Outputs:
    """Of a request for plain text."""

    __slots__ = (
        "_begun",
        "_cached",
        "_count",
        "_decode_s",
        "_number",
        "_prefill_s",
        "_prompt",
        "_put",
        "ended",
    )

    def __init__(self, number: int, prompt_tokens: int, put: Put) -> None:
        self._number = number
        self._prompt = prompt_tokens
        self._put = put
        self._begun = False
        self._cached = 0
        self._count = 0
        self._prefill_s = self._decode_s = -1.0
        self.ended = False

    def take(self, output: Any) -> None:
        """Called by vLLM for each output of the request, or with the exception that ended it."""
        if isinstance(output, Exception):
            reason = str(output) or type(output).__name__
            self._fail(OverloadedError.status, reason)
            return
        completion = output.outputs[0] if output.outputs else None
        text = completion.text if completion else ""
        tokens = list(completion.token_ids) if completion else []
        self._count += len(tokens)
        if output.num_cached_tokens:
            self._cached = min(output.num_cached_tokens, self._prompt)
        if output.kv_transfer_params is not None:
            self._hear_work(output)
        if not output.finished:
            if not self._begun:
                self._begun = True
                self._put(wire.Started(self._number, self._prompt, self._cached))
            self._tell(output, completion, text, tokens)
            return
        reason = (completion.finish_reason if completion else None) or "abort"
        if reason == "error":
            self._fail(*self._error())
            return
        self.ended = True
        self._put_used()
        self._finish(output, completion, text, tokens, reason)

    def _hear_work(self, output: Any) -> None:
        """The engine core tells with the first output how long the prompt took, with the last one
        how long all of it did."""
        work = told_work(output.kv_transfer_params)
        if work is not None:
            self._prefill_s = work[0]
            self._decode_s = work[1] if output.finished else -1.0

    def _put_used(self) -> None:
        """What vLLM has counted: a prompt, with its first token."""
        prompt = (self._prompt, self._cached) if self._count else (0, 0)
        work = (self._prefill_s, self._decode_s)
        self._put(wire.Used(self._number, *prompt, self._count, *work))

    def _tell(self, output: Any, completion: Any, text: str, tokens: list[int]) -> None:
        self._put(wire.Chunk(self._number, text, tokens))

    def _finish(
        self, output: Any, completion: Any, text: str, tokens: list[int], reason: str
    ) -> None:
        self._put(wire.Done(self._number, text, tokens, reason, *self._counts()))

    def _counts(self) -> tuple[int, int, int]:
        return self._prompt, self._cached, self._count

    def _error(self) -> tuple[int, str]:
        return 500, "The engine could not go on with this request."

    def _fail(self, status: int, message: str) -> None:
        self.ended = True
        self._put_used()
        self._put(wire.Failed(self._number, status, message))


class KeptOutputs(Outputs):
    """Of a prompt that is computed for another replica. ``epoch_s``: seconds since the epoch."""

    __slots__ = ("_epoch_s",)

    def __init__(
        self, number: int, prompt_tokens: int, put: Put, epoch_s: Callable[[], float]
    ) -> None:
        super().__init__(number, prompt_tokens, put)
        self._epoch_s = epoch_s

    def _tell(self, output: Any, completion: Any, text: str, tokens: list[int]) -> None:
        """What it generates besides, nobody wants."""

    def _finish(
        self, output: Any, completion: Any, text: str, tokens: list[int], reason: str
    ) -> None:
        prompt, cached, _ = self._counts()
        if reason == "abort":
            self._put(wire.Done(self._number, "", [], reason, prompt, cached, 0))
        elif not output.kv_transfer_params:
            self._fail(CannotDoError.status, "This engine hands no KV blocks over.")
        else:
            blocks = kept_blocks(output.kv_transfer_params, self._epoch_s())
            self._put(wire.Kept(self._number, "", [], reason, prompt, cached, 0, blocks))


@dataclass(frozen=True, slots=True)
class Wanted:
    """The log-probabilities that a request asks for, and how a token's text is found."""

    logprobs: int | None
    prompt_logprobs: int | None
    decode: Decode


class RichOutputs(Outputs):
    """Of a request that asks for log-probabilities, has a reader, or was begun elsewhere.

    ``rich`` is False where only the last is the case: what it is sent is plain. ``broken`` is
    called where an output cannot be read, to end the request in the engine.
    """

    __slots__ = (
        "_ids",
        "_pending",
        "_reader",
        "_rich",
        "_scores",
        "_wanted",
        "broken",
        "delivered",
    )

    def __init__(
        self,
        number: int,
        prompt: list[int],
        put: Put,
        wanted: Wanted,
        reader: ChatReader | None,
        rich: bool,
    ) -> None:
        super().__init__(number, len(prompt), put)
        self._ids = prompt
        self._wanted = wanted
        self._reader = reader
        self._rich = rich
        self._scores = wanted.logprobs is not None or wanted.prompt_logprobs is not None
        self._pending: Piece | None = None
        self.delivered: Delivered | None = None
        self.broken: Callable[[], None] = lambda: None

    def begin(self, new: Piece) -> None:
        """Put ``new`` before the first output: what the replica before had held back."""
        self._pending = new

    def end(self, new: Piece, reason: str, stop_reason: int | str | None) -> None:
        """The tokens that were generated elsewhere end the answer."""
        self.ended = True
        self._put_used()
        self._put_done(new, [], reason, self._extra(new, None, None, [], stop_reason))

    def take(self, output: Any) -> None:
        """As in the base class."""
        if self.ended:
            return
        try:
            super().take(output)
        except Exception as error:  # noqa: BLE001 - vLLM's loop, in which this runs, must not end
            _LOG.error("an output could not be read: %s", stack_of(error))
            self.broken()
            self._fail(500, f"The output could not be read ({type(error).__name__}).")

    def _tell(self, output: Any, completion: Any, text: str, tokens: list[int]) -> None:
        piece = self._read(text, tokens, finished=False)
        if not self._rich or not (self._scores or piece.reasoning or piece.calls):
            # Nothing but text, which costs the gateway half of what anything else does.
            self._put(wire.Chunk(self._number, piece.text, tokens))
            return
        extra = self._extra(piece, output, completion, tokens)
        self._put(wire.RichChunk(self._number, piece.text, tokens, extra))

    def _finish(
        self, output: Any, completion: Any, text: str, tokens: list[int], reason: str
    ) -> None:
        piece = self._read(text, tokens, finished=True)
        stop = completion.stop_reason if completion else None
        extra = self._extra(piece, output, completion, tokens, stop)
        self._put_done(piece, tokens, reason, extra)

    def _put_done(self, piece: Piece, tokens: list[int], reason: str, extra: wire.Extra) -> None:
        if self._reader is not None:
            reason = self._reader.finish_reason(reason)
        done = (self._number, piece.text, tokens, reason, *self._counts())
        self._put(wire.RichDone(*done, extra) if self._rich else wire.Done(*done))

    def _read(self, text: str, tokens: list[int], finished: bool) -> Piece:
        if self._reader is None:
            piece = Piece(text)
        else:
            piece = self._reader.take(text, tokens, self._ids, finished)
        if self.delivered is not None:
            piece = self.delivered.cut(piece)
        if self._pending is not None:
            before, self._pending = self._pending, None
            before.join(piece)
            return before
        return piece

    def _extra(
        self,
        piece: Piece,
        output: Any,
        completion: Any,
        tokens: list[int],
        stop_reason: int | str | None = None,
    ) -> wire.Extra:
        extra = wire.Extra(reasoning=piece.reasoning, calls=piece.calls, stop_reason=stop_reason)
        wanted = self._wanted
        hidden = self._reader is not None and self._reader.hides_tokens
        found = completion.logprobs if completion is not None and not hidden else None
        if wanted.logprobs is not None and found:
            extra.logprobs = scored_output(tokens, found, wanted.logprobs, wanted.decode)
        if wanted.prompt_logprobs is not None and output is not None and output.prompt_logprobs:
            found, top = output.prompt_logprobs, wanted.prompt_logprobs
            extra.prompt_logprobs = scored_prompt(self._ids, found, top, wanted.decode)
        return extra

    def _error(self) -> tuple[int, str]:
        structured = self._reader is not None and self._reader.structured_outputs is not None
        if structured:
            if self._count:
                return 400, "The grammar that the request asks for leaves no way on."
            if self.delivered is not None:
                what = "This engine could not bring the grammar to where the stream broke off."
                return CannotDoError.status, what
            return 400, "The grammar that the request asks for cannot be compiled."
        return super()._error()


class Embedding:
    """Of a request for an embedding or a score."""

    def __init__(self, number: int, prompt_tokens: int, put: Put) -> None:
        self._number = number
        self._prompt = prompt_tokens
        self._put = put
        self.ended = False

    def take(self, output: Any) -> None:
        """As in :class:`Outputs`."""
        self.ended = True
        if isinstance(output, Exception):
            reason = str(output) or type(output).__name__
            self._put(wire.Failed(self._number, OverloadedError.status, reason))
            return
        vector = output.outputs.data.flatten().tolist()
        if not vector:  # what vLLM gives for a request that it aborted
            self._put(wire.Used(self._number, 0, 0, 0))
            self._put(wire.Failed(self._number, OverloadedError.status, "The engine gave up."))
            return
        cached = min(output.num_cached_tokens or 0, self._prompt)
        self._put(wire.Used(self._number, self._prompt, cached, 0))
        self._put(wire.Embedded(self._number, vector, self._prompt, cached))
