"""LMCache's agent recordings: real prompt text, replayed closed-loop within a session.

Tokens are approximated as four characters; a block is 64 characters (16 tokens), hashed with
its predecessor's hash as the seed. A session's pauses are the recorded gaps between calls, at
most ``think_cap_s``; they contain the recorded answer time, which the file does not tell apart.
Source: LMCache/lmcache-agent-trace.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xxhash

from load_tests.traces.reading import field, json_lines
from load_tests.traces.schema import Trace, TraceRequest

BLOCK_SIZE = 16
CHARS_PER_TOKEN = 4


def load_lmcache(path: Path, limit: int | None = None, think_cap_s: float = 60.0) -> Trace:
    """Read the first ``limit`` calls. The agent is the tenant."""
    calls: dict[tuple[str, str], list[tuple[int, dict[str, Any]]]] = {}
    for number, row in json_lines(path, limit):
        key = (field(path, number, row, "agent", str), field(path, number, row, "session", str))
        calls.setdefault(key, []).append((number, row))
    requests: list[TraceRequest] = []
    sessions: list[tuple[int, ...]] = []
    for (agent, session), rows in sorted(calls.items()):
        rows.sort(key=lambda item: field(path, item[0], item[1], "timestamp", int))
        first = len(requests)
        stamp: int | None = None
        for number, row in rows:
            now = field(path, number, row, "timestamp", int)
            gap = 0.0 if stamp is None else min((now - stamp) / 1e6, think_cap_s)
            after = ((len(requests) - 1, gap),) if stamp is not None else ()
            stamp = now
            text = field(path, number, row, "input", str)
            answer = field(path, number, row, "output", str)
            requests.append(_call(text, answer, agent, session, after))
        sessions.append(tuple(range(first, len(requests))))
    return Trace(path.name, "lmcache", BLOCK_SIZE, tuple(requests), tuple(sessions))


def _call(
    text: str, answer: str, agent: str, session: str, after: tuple[tuple[int, float], ...]
) -> TraceRequest:
    return TraceRequest(
        arrival_s=0.0,
        prompt_tokens=max(1, len(text) // CHARS_PER_TOKEN),
        output_tokens=max(1, len(answer) // CHARS_PER_TOKEN),
        block_hashes=text_blocks(text),
        tenant=agent,
        session=f"{agent}/{session}",
        after=after,
    )


def text_blocks(text: str, block_chars: int = BLOCK_SIZE * CHARS_PER_TOKEN) -> tuple[int, ...]:
    """Chained 60-bit hashes of a text's full blocks."""
    out: list[int] = []
    key = 0
    for start in range(0, len(text) - block_chars + 1, block_chars):
        block = text[start : start + block_chars].encode()
        key = xxhash.xxh3_64_intdigest(block, seed=key) >> 4
        out.append(key)
    return tuple(out)
