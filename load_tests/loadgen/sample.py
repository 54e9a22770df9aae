"""What is known of one stream, what makes it complete, and the figures over many."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from load_tests.report import percentile


@dataclass(frozen=True, slots=True)
class Shape:
    """How a dialect's event stream is read. ``output``: an event with what a client is shown (text,
    reasoning, or a piece of a tool call); ``tokens`` and ``prompt``: token counts; ``length``: the
    answer ended because it was long enough; ``end``: the stream's proper end."""

    output: re.Pattern[bytes]
    tokens: re.Pattern[bytes]
    prompt: re.Pattern[bytes]
    length: re.Pattern[bytes]
    end: re.Pattern[bytes]


#: Chat. An empty content (the role chunk in front, the chunk with the finish reason at the end)
#: shows a client nothing.
CHAT_SHAPE = Shape(
    re.compile(
        rb'"(?:content|reasoning|reasoning_content|arguments)":\s?"(?!")|"tool_calls":\s?\[\s?\{'
    ),
    re.compile(rb'"completion_tokens":\s?(\d+)'),
    re.compile(rb'"prompt_tokens":\s?(\d+)'),
    re.compile(rb'"finish_reason":\s?"length"'),
    re.compile(rb"(?m)^data: ?\[DONE\]\s*\Z"),
)
RESPONSES_SHAPE = Shape(
    re.compile(
        rb"(?m)^event: response\.(?:output_text|reasoning_text|function_call_arguments)\.delta$"
    ),
    re.compile(rb'"output_tokens":\s?(\d+)'),
    re.compile(rb'"input_tokens":\s?(\d+)'),
    re.compile(rb'"reason":\s?"max_output_tokens"'),
    re.compile(rb"(?m)^event: response\.(?:completed|incomplete)\ndata: .*\s*\Z"),
)
MESSAGES_SHAPE = Shape(
    re.compile(rb'"type":\s?"(?:text|thinking|input_json)_delta"'),
    re.compile(rb'"output_tokens":\s?(\d+)'),
    re.compile(rb'"input_tokens":\s?(\d+)'),
    re.compile(rb'"stop_reason":\s?"max_tokens"'),
    re.compile(rb"(?m)^event: message_stop\ndata: .*\s*\Z"),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished request; times in seconds on the monotonic clock.

    ``reads`` are the arrivals that carried output (text, reasoning, tool calls), ``text_chunks``
    the events with output (a server may send several tokens in one event, and several events may
    arrive in one read). ``error`` is None for a complete stream.
    """

    sent_s: float
    done_s: float
    reads_s: tuple[float, ...] = ()
    text_chunks: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    error: str | None = None

    @property
    def ttft_s(self) -> float | None:
        """From sending the request to the first arrival with output."""
        return self.reads_s[0] - self.sent_s if self.reads_s else None


@dataclass(slots=True)
class Watch:
    """Watches one answer. While it streams, only arrival times are taken; the text is read once
    at the end, so that the generator stays cheap.

    Tokens that make no text (half a character) may be missing as chunks; the usage counts them.
    """

    sent_s: float
    expected_tokens: int
    shape: Shape = CHAT_SHAPE
    _parts: list[bytes] = field(default_factory=list)
    _reads: list[float] = field(default_factory=list)

    def body(self, part: bytes, now_s: float) -> None:
        """A piece of the body has arrived."""
        self._parts.append(part)
        if self.shape.output.search(part if self._reads else b"".join(self._parts)):
            self._reads.append(now_s)

    def header(self, name: bytes, value: bytes) -> None:
        """A header of the answer: of no interest here."""

    def finish(self, status: int, now_s: float) -> Sample:
        """The answer is over: is it complete?"""
        text = b"".join(self._parts)
        shape = self.shape
        tokens = _last_number(shape.tokens, text)
        return Sample(
            sent_s=self.sent_s,
            done_s=now_s,
            reads_s=tuple(self._reads),
            text_chunks=sum(
                shape.output.search(event) is not None for event in text.split(b"\n\n")
            ),
            output_tokens=tokens or 0,
            prompt_tokens=_last_number(shape.prompt, text) or 0,
            error=self._fault(status, text, tokens),
        )

    def fail(self, reason: str, now_s: float) -> Sample:
        """The connection broke, or time ran out."""
        return Sample(self.sent_s, now_s, tuple(self._reads), error=reason)

    def _fault(self, status: int, text: bytes, tokens: int | None) -> str | None:
        if status != 200:
            return f"status {status}: {text[:200].decode('utf-8', 'replace')}"
        if not self.shape.end.search(text):
            return f"no proper end: {text[-120:].decode('utf-8', 'replace')}"
        if tokens is None:
            return "no usage in the stream"
        if tokens != self.expected_tokens:
            return f"{tokens} tokens instead of {self.expected_tokens}"
        if not self.shape.length.search(text):
            return "it did not end by its length"
        return None


def latency_figures(samples: Sequence[Sample]) -> dict[str, float | None]:
    """TTFT, gaps between arrivals of text, and the whole request; milliseconds."""
    good = [sample for sample in samples if sample.error is None]
    ttft = [sample.ttft_s for sample in good if sample.ttft_s is not None]
    gaps = [late - early for sample in good for early, late in pairwise(sample.reads_s)]
    whole = [sample.done_s - sample.sent_s for sample in good]
    return {
        "ttft_ms_p50": _ms(percentile(ttft, 50)),
        "ttft_ms_p90": _ms(percentile(ttft, 90)),
        "ttft_ms_p99": _ms(percentile(ttft, 99)),
        "gap_ms_p50": _ms(percentile(gaps, 50)),
        "gap_ms_p99": _ms(percentile(gaps, 99)),
        "request_ms_p50": _ms(percentile(whole, 50)),
    }


def closed_loop_rate(samples: Sequence[Sample], streams: int) -> float:
    """Complete requests per second of ``streams`` that each send the next request when one is done,
    by Little's law: streams over the mean time of a request.

    To count what ended within a window is coarser. Streams that begin together end together, so the
    count is off by up to all of them: with 32 streams and 4 s by 8 requests per second.
    """
    good = sum(sample.error is None for sample in samples)
    taken_s = sum(sample.done_s - sample.sent_s for sample in samples)
    return streams * good / taken_s if taken_s else 0.0


def figures(
    samples: Sequence[Sample], window_s: float, streams: int | None = None
) -> dict[str, Any]:
    """Throughput of complete streams over the window (in a closed loop of ``streams``: see
    :func:`closed_loop_rate`), latencies, and what went wrong."""
    good = [sample for sample in samples if sample.error is None]
    reads = sum(len(sample.reads_s) for sample in good)
    return {
        "req_per_s": closed_loop_rate(samples, streams) if streams else len(good) / window_s,
        "output_tokens_per_s": sum(sample.output_tokens for sample in good) / window_s,
        **latency_figures(samples),
        "prompt_tokens_mean": _mean([sample.prompt_tokens for sample in good]),
        "text_chunks_per_request": _mean([sample.text_chunks for sample in good]),
        "text_reads_per_request": reads / len(good) if good else None,
        "requests": len(samples),
        "errors": len(samples) - len(good),
    }


def _last_number(pattern: re.Pattern[bytes], text: bytes) -> int | None:
    found = pattern.findall(text)
    return int(found[-1]) if found else None


def _mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
