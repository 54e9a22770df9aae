"""The sequences an engine decodes, kept so that many steps can be taken at once.

All of them advance together, so one step counter does for all: a sequence ends at a step number
known when it enters, and takes a new KV block every ``block_size`` steps at a known phase.
"""

from __future__ import annotations

import heapq

from load_tests.sim.request import SimRequest


class DecodeSet:
    """Decoding sequences of one engine."""

    __slots__ = ("_block_size", "_ends", "_members", "_phases", "context", "step")

    def __init__(self, block_size: int) -> None:
        self.step = 0
        self.context = 0  # tokens the members hold in KV
        self._block_size = block_size
        self._members: dict[int, tuple[SimRequest, int]] = {}  # -> (request, ends at step)
        self._ends: list[tuple[int, int]] = []  # (step, request index); stale ones are skipped
        self._phases = [0] * block_size  # members that take a block at steps of this residue

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, request: SimRequest) -> bool:
        return request.index in self._members

    def requests(self) -> list[SimRequest]:
        """The members, first come first."""
        return [member[0] for member in self._members.values()]

    def members(self) -> list[tuple[SimRequest, int]]:
        """The members with the steps they still have to go."""
        return [(request, end - self.step) for request, end in self._members.values()]

    def left(self) -> list[int]:
        """Steps each member still has to go."""
        return [end - self.step for _, end in self._members.values()]

    def add(self, request: SimRequest, steps: int) -> None:
        """A sequence with ``request.kv_tokens`` in KV that will take ``steps`` more steps."""
        end = self.step + steps
        request.decode_from = self.step
        self._members[request.index] = (request, end)
        heapq.heappush(self._ends, (end, request.index))
        self.context += request.kv_tokens
        self._phases[self._phase(request)] += 1

    def remove(self, request: SimRequest) -> None:
        """Take a sequence out (it ends or is preempted)."""
        del self._members[request.index]
        self.context -= self.kv_tokens(request)
        self._phases[self._phase(request)] -= 1

    def take(self, request: SimRequest) -> None:
        """The same, with the request's own counts brought up to date."""
        kv_tokens, generated = self.kv_tokens(request), self.generated(request)
        self.remove(request)
        request.kv_tokens, request.generated = kv_tokens, generated

    def kv_tokens(self, request: SimRequest) -> int:
        """Tokens the sequence holds in KV now."""
        return request.kv_tokens + self.step - request.decode_from

    def generated(self, request: SimRequest) -> int:
        """Tokens the sequence has put out."""
        return request.generated + self.step - request.decode_from

    def growth(self, steps: int) -> int:
        """New blocks that ``steps`` more steps take."""
        size = self._block_size
        whole, rest = divmod(steps, size)
        blocks = whole * len(self._members)
        if rest:
            phases = self._phases
            start = (self.step + 1) % size
            end = start + rest
            blocks += sum(phases[start:end])
            if end > size:
                blocks += sum(phases[: end - size])
        return blocks

    def run_length(self, available: int) -> int:
        """Steps until the first member ends, or as many as ``available`` blocks allow."""
        ends = self._ends
        while True:
            end, index = ends[0]
            member = self._members.get(index)
            if member is not None and member[1] == end:
                break
            heapq.heappop(ends)
        steps = end - self.step
        if self.growth(steps) <= available:
            return steps
        low, high = 1, steps
        while low < high:
            middle = (low + high + 1) // 2
            if self.growth(middle) <= available:
                low = middle
            else:
                high = middle - 1
        return low

    def advance(self, steps: int) -> list[SimRequest]:
        """Take ``steps`` steps; returns, and removes, the members that ended."""
        self.step += steps
        self.context += steps * len(self._members)
        ended = []
        ends = self._ends
        while ends and ends[0][0] <= self.step:
            end, index = heapq.heappop(ends)
            member = self._members.get(index)
            if member is None or member[1] != end:
                continue
            request = member[0]
            self.remove(request)
            request.kv_tokens = self.kv_tokens(request)
            ended.append(request)
        return ended

    def _phase(self, request: SimRequest) -> int:
        return (request.decode_from + 1 - request.kv_tokens) % self._block_size
