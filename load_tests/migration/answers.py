"""One streamed answer as its client saw it: text, arrivals, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import orjson

REPLICA_HEADER = b"x-weir-replica"
#: A dead replica's last bytes may still be on their way: the gap begins at most so much later.
SEAM_BEGINS_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """``prompt`` is the prompt's number, ``replica`` who began the answer. ``arrivals_s``: when the
    pieces of the body arrived. ``error`` is None for a complete answer. Times in seconds on the
    monotonic clock."""

    prompt: int
    sent_s: float
    done_s: float
    arrivals_s: tuple[float, ...] = ()
    replica: str = ""
    text: str = ""
    output_tokens: int = 0
    error: str | None = None

    @property
    def begun(self) -> bool:
        """Whether the client had been sent output before the end or the error."""
        return bool(self.text)

    @property
    def gaps_s(self) -> list[float]:
        """The time between two arrivals each."""
        return [late - early for early, late in pairwise(self.arrivals_s)]

    def gap_at(self, fault_s: float) -> float | None:
        """The longest gap that a fault at ``fault_s`` can have made: one that ends after it and
        begins before it or shortly after. None if the answer had not begun, or was complete."""
        if not self.arrivals_s or not self.arrivals_s[0] < fault_s < self.arrivals_s[-1]:
            return None
        latest_s = fault_s + SEAM_BEGINS_WITHIN_S
        return max(
            late - early
            for early, late in pairwise(self.arrivals_s)
            if late > fault_s and early < latest_s
        )


@dataclass(slots=True)
class AnswerWatch:
    """Watches one answer (:class:`load_tests.loadgen.connection.Watcher`). While it streams, only
    arrivals are noted; the text is read once at the end, so that the generator stays cheap."""

    prompt: int
    expected_tokens: int
    sent_s: float
    _parts: list[bytes] = field(default_factory=list)
    _arrivals: list[float] = field(default_factory=list)
    _replica: str = ""

    def header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        if name.lower() == REPLICA_HEADER:
            self._replica = value.decode("latin-1")

    def body(self, part: bytes, now_s: float) -> None:
        """A piece of the body has arrived. Pieces of one read count as one arrival."""
        self._parts.append(part)
        if not self._arrivals or self._arrivals[-1] != now_s:
            self._arrivals.append(now_s)

    def finish(self, status: int, now_s: float) -> Answer:
        """The answer is over: is it complete?"""
        raw = b"".join(self._parts)
        if status != 200:
            return self._answer(now_s, "", 0, f"status {status}: {_told(raw)}")
        return self._answer(now_s, *self._read(raw))

    def fail(self, reason: str, now_s: float) -> Answer:
        """The connection broke, or time ran out."""
        text, tokens, _ = self._read(b"".join(self._parts))
        return self._answer(now_s, text, tokens, reason)

    def _answer(self, now_s: float, text: str, tokens: int, error: str | None) -> Answer:
        return Answer(
            self.prompt,
            self.sent_s,
            now_s,
            tuple(self._arrivals),
            self._replica,
            text,
            tokens,
            error,
        )

    def _read(self, raw: bytes) -> tuple[str, int, str | None]:
        """Text, output tokens by the usage, and the fault."""
        texts: list[str] = []
        tokens, reason, done = 0, None, False
        for line in raw.split(b"\n\n"):
            if not line.startswith(b"data: "):
                continue
            if line == b"data: [DONE]":
                done = True
                continue
            try:
                event = orjson.loads(line[6:])
            except orjson.JSONDecodeError:  # torn off when the connection broke
                continue
            if "error" in event:
                return "".join(texts), tokens, f"error event: {event['error'].get('message')}"
            if usage := event.get("usage"):
                tokens = usage["completion_tokens"]
            for choice in event.get("choices", ()):
                texts.append(choice["delta"].get("content") or "")
                reason = choice["finish_reason"] or reason
        return "".join(texts), tokens, self._fault(tokens, reason, done)

    def _fault(self, tokens: int, reason: str | None, done: bool) -> str | None:
        if not done:
            return "no [DONE] at the end"
        if reason != "length":
            return f"finish reason {reason!r}"
        if tokens != self.expected_tokens:
            return f"{tokens} tokens instead of {self.expected_tokens}"
        return None


def _told(raw: bytes) -> str:
    try:
        return str(orjson.loads(raw)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return raw[:160].decode("utf-8", "replace")


def seam_gaps_s(answers: Sequence[Answer], faults: Sequence[tuple[float, str]]) -> list[float]:
    """The gap that each client saw whose answer was under way on the replica of a fault.

    ``faults``: when, and to which replica. A response's headers name the replica that began it, so
    this sees an answer's first seam; where it goes on is not told to clients.
    """
    gaps = []
    for answer in answers:
        own = [at_s for at_s, replica in faults if replica == answer.replica]
        found = [gap for at_s in own if (gap := answer.gap_at(at_s)) is not None]
        gaps += found[:1]
    return gaps
