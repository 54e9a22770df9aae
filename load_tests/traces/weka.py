"""WEKA's recordings of coding agents: sessions of turns with block ids local to the session.

``in``/``out`` tokens, ``h`` range-coded ids of full 64-token blocks, ``think_time`` the client's
delay before the request, sub-agents nested. There are no absolute arrivals, so the trace is
closed-loop. Source: callanjfox/kv-cache-tester.

What the recording does not say, and what is assumed here:

* the first ``tool_tokens // 64`` blocks are the tool definitions; sessions with the same number
  share them (same client build);
* think times are capped at ``think_cap_s`` (the longest recorded ones are nights);
* a session ends where its context passes ``max_context_tokens``;
* a sub-agent's stamp is that of its end: it starts when the parent's turn before it has been
  answered, and the parent's next turn waits for it as well as for its own think time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load_tests.traces.reading import field as get
from load_tests.traces.reading import json_lines
from load_tests.traces.schema import Trace, TraceError, TraceRequest

BLOCK_SIZE = 64
_MASK = (1 << 60) - 1  # small integers for the index


@dataclass(frozen=True, slots=True)
class WekaOptions:
    """``coarse`` source blocks become one (8: 512 tokens); the others: see the module."""

    coarse: int = 8
    think_cap_s: float = 300.0
    max_context_tokens: int = 200_000
    share_tools: bool = True


@dataclass(slots=True)
class _Session:
    number: int
    name: str
    options: WekaOptions
    base: int
    requests: list[TraceRequest] = field(default_factory=list)

    def chain(self, ids: Sequence[int], tool_tokens: int) -> tuple[int, ...]:
        """Chained hashes of the coarse blocks. Hashes of integer tuples do not depend on
        the interpreter's hash seed."""
        step = self.options.coarse
        shared = tool_tokens // BLOCK_SIZE // step if self.options.share_tools else 0
        out: list[int] = []
        key = 0
        for index in range(len(ids) // step):
            if index < shared:
                key = hash((key, -1, tool_tokens, index))
            else:
                key = hash((key, self.number, *ids[index * step : (index + 1) * step]))
            out.append(key & _MASK)
        return tuple(out)

    def add(self, path: Path, line: int, turn: dict[str, Any], tools: int, after: Any) -> int:
        """Append one turn; returns its index in the whole trace."""
        ids = expand_ranges(turn.get("h") or ())
        self.requests.append(
            TraceRequest(
                arrival_s=0.0,
                prompt_tokens=max(1, get(path, line, turn, "in", int)),
                output_tokens=max(1, get(path, line, turn, "out", int)),
                block_hashes=self.chain(ids, tools),
                session=self.name,
                after=tuple(after),
            )
        )
        return self.base + len(self.requests) - 1


def expand_ranges(coded: Sequence[Any]) -> list[int]:
    """``[[1, 4], 9]`` → ``[1, 2, 3, 4, 9]``."""
    out: list[int] = []
    for item in coded:
        if isinstance(item, list):
            out.extend(range(item[0], item[1] + 1))
        else:
            out.append(item)
    return out


def load_weka(path: Path, limit: int | None = None, **options: Any) -> Trace:
    """Read at most ``limit`` sessions; ``options`` are the fields of :class:`WekaOptions`."""
    chosen = WekaOptions(**options)
    requests: list[TraceRequest] = []
    sessions: list[tuple[int, ...]] = []
    for line, row in json_lines(path, limit):
        turns = row.get("requests")
        if not isinstance(turns, list):
            raise TraceError(f"{path}:{line}: requests should be a list")
        session = _Session(len(sessions), str(row.get("id", line)), chosen, len(requests))
        _walk(path, line, session, turns, int(row.get("tool_tokens", 0)), ())
        if session.requests:
            first = len(requests)
            requests.extend(session.requests)
            sessions.append(tuple(range(first, len(requests))))
    size = BLOCK_SIZE * chosen.coarse
    return Trace(path.name, "weka", size, tuple(requests), tuple(sessions))


def _walk(
    path: Path,
    line: int,
    session: _Session,
    turns: list[dict[str, Any]],
    tools: int,
    start: tuple[tuple[int, float], ...],
) -> int | None:
    """Add the turns of one conversation; returns the index of its last one."""
    last: int | None = None
    branches: list[int] = []
    for turn in turns:
        if turn.get("type") == "subagent":
            begin = ((last, 0.0),) if last is not None else start
            inner = int(turn.get("tool_tokens", 0))
            end = _walk(path, line, session, turn.get("requests") or [], inner, begin)
            if end is not None:
                branches.append(end)
            continue
        if get(path, line, turn, "in", int) > session.options.max_context_tokens:
            break
        think = min(float(turn.get("think_time") or 0.0), session.options.think_cap_s)
        own = ((last, think),) if last is not None else start
        joined = tuple((branch, 0.0) for branch in branches)
        last = session.add(path, line, turn, tools, own + joined)
        branches = []
    return last
