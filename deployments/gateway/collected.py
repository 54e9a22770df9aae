"""One choice of an answer, put together from its outputs."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments import wire
from deployments.gateway.outputs import Output, extra_of


@dataclass(slots=True)
class Call:
    """One tool call."""

    id: str
    name: str
    arguments: str = ""


@dataclass(slots=True)
class Collected:
    """What was generated for one choice so far. ``finish_reason`` is empty until its end."""

    texts: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
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
