"""What replicas put out, counted and joined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from deployments import wire

Output = wire.Chunk | wire.Done | wire.Embedded
Last = (wire.Done, wire.Embedded)


@dataclass(frozen=True, slots=True)
class Counts:
    """Token counts of an answer, or of a part of it."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def usage(self) -> dict[str, object]:
        """OpenAI's ``usage`` object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.prompt_tokens + self.output_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


def total(parts: Iterable[Counts]) -> Counts:
    """All of them together."""
    counts = list(parts)
    if len(counts) == 1:
        return counts[0]
    return Counts(
        sum(c.prompt_tokens for c in counts),
        sum(c.cached_tokens for c in counts),
        sum(c.output_tokens for c in counts),
    )


def extra_of(output: Output) -> wire.Extra | None:
    """Log-probabilities, reasoning and tool calls; None where the output is plain text."""
    return output.extra if isinstance(output, wire.RichChunk | wire.RichDone) else None


def join(outputs: Sequence[Output]) -> Output:
    """Outputs that arrived together as one; the last one says whether the stream has ended."""
    last = outputs[-1]
    if len(outputs) == 1 or isinstance(last, wire.Embedded):
        return last
    texts = [o for o in outputs if isinstance(o, wire.Chunk | wire.Done)]
    last.text = "".join(o.text for o in texts)
    last.tokens = [token for o in texts for token in o.tokens]
    extras = [extra for o in texts if (extra := extra_of(o)) is not None]
    if extras:
        return _enriched(last, _merged(extras))
    return last


def _enriched(output: wire.Chunk | wire.Done, extra: wire.Extra) -> Output:
    if isinstance(output, wire.RichChunk | wire.RichDone):
        output.extra = extra
        return output
    if isinstance(output, wire.Done):
        done = output
        return wire.RichDone(
            done.stream,
            done.text,
            done.tokens,
            done.finish_reason,
            done.prompt_tokens,
            done.cached_tokens,
            done.output_tokens,
            extra,
        )
    return wire.RichChunk(output.stream, output.text, output.tokens, extra)


def _merged(extras: Sequence[wire.Extra]) -> wire.Extra:
    return wire.Extra(
        logprobs=[p for extra in extras for p in extra.logprobs],
        reasoning="".join(extra.reasoning for extra in extras),
        calls=[call for extra in extras for call in extra.calls],
        prompt_logprobs=[p for extra in extras for p in extra.prompt_logprobs],
        stop_reason=extras[-1].stop_reason,
    )


class Delivered:
    """How much of a choice the client has been sent, for :class:`wire.Resume`."""

    __slots__ = ("calls", "reasoning", "text")

    def __init__(self) -> None:
        self.text = 0
        self.reasoning = 0
        self.calls: list[int] = []

    def add(self, output: wire.Chunk | wire.Done) -> None:
        """One more output was delivered."""
        self.text += len(output.text)
        if not isinstance(output, wire.RichChunk | wire.RichDone):
            return
        extra = output.extra
        self.reasoning += len(extra.reasoning)
        for call in extra.calls:
            while len(self.calls) <= call.index:
                self.calls.append(0)
            self.calls[call.index] += len(call.arguments)


@dataclass(slots=True)
class Call:
    """One tool call."""

    id: str
    name: str
    arguments: str = ""


@dataclass(slots=True)
class Collected:
    """What was generated for one choice so far. ``finish_reason`` is empty until its end.
    ``reasoning_tokens``: of the outputs that carried reasoning."""

    texts: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    reasoning_tokens: int = 0
    calls: list[Call] = field(default_factory=list)
    logprobs: list[wire.Scored] = field(default_factory=list)
    prompt_logprobs: list[wire.Scored] = field(default_factory=list)
    finish_reason: str = ""
    stop_reason: int | str | None = None
    vector: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text of the choice."""
        return "".join(self.texts)

    def add(self, output: Output) -> None:
        """One more output of the choice."""
        if isinstance(output, wire.Embedded):
            self.vector = output.vector
            return
        self.texts.append(output.text)
        self.tokens += output.tokens
        if isinstance(output, wire.Done):
            self.finish_reason = output.finish_reason
        extra = extra_of(output)
        if extra is not None:
            self._add_extra(extra)
            self.reasoning_tokens += len(output.tokens) if extra.reasoning else 0

    def _add_extra(self, extra: wire.Extra) -> None:
        self.logprobs += extra.logprobs
        self.prompt_logprobs += extra.prompt_logprobs
        self.stop_reason = extra.stop_reason
        if extra.reasoning:
            self.reasoning.append(extra.reasoning)
        for delta in extra.calls:
            while len(self.calls) <= delta.index:
                self.calls.append(Call("", ""))
            call = self.calls[delta.index]
            call.id = call.id or delta.id
            call.name = call.name or delta.name
            call.arguments += delta.arguments
