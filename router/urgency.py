"""Outstanding work by urgency: what goes before an urgent request on an engine that yields.

Such an engine (:mod:`deployments.yielding`) interrupts a prompt for a more urgent one between two
steps. A request therefore waits for the prompts that are as urgent or more so, and of everything
else only for the step under way. How long that takes is known from when the replica's last step
ended: every step tells itself, because every sequence that decodes gets a token from it.

Worth, measured alone with engines that yield (simulated, 8 replicas, 3 seeds that are not
reported): TTFT p99 of chat beside batch at twice the capacity 195 ms instead of 295, beside long
documents 296 instead of 400, for 1 to 2 % of the tokens per second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.snapshot import Ahead

#: A step that should have ended this many times over did not tell its end.
_OVERDUE = 3.0


class UrgencyColumns:
    """What is outstanding of one urgency, per slot of the ledger: requests, prefill tokens and
    work, decode and context tokens; when the prefill under way began (a dispatch, or the end of
    the one before, of this urgency or a more urgent one); and how many requests were dispatched
    there so far."""

    __slots__ = ("context", "decode", "dispatched", "requests", "since_s", "tokens", "work")

    def __init__(self, slots: int) -> None:
        self.tokens = [0] * slots
        self.work = [0] * slots
        self.decode = [0] * slots
        self.context = [0] * slots
        self.since_s = [0.0] * slots
        self.dispatched = [0] * slots
        self.requests = [0] * slots

    def align(self, slots: Sequence[int]) -> None:
        """Column *i* is what was column ``slots[i]`` (-1: new)."""
        counts = (self.requests, self.tokens, self.work, self.decode, self.context, self.dispatched)
        for column in counts:
            column[:] = [column[slot] if slot >= 0 else 0 for slot in slots]
        self.since_s[:] = [self.since_s[slot] if slot >= 0 else 0.0 for slot in slots]

    def dispatch(self, slot: int, now_s: float) -> None:
        """A request goes there; :meth:`change` will count it."""
        if not self.tokens[slot]:
            self.since_s[slot] = now_s
        self.dispatched[slot] += 1

    def change(
        self, slot: int, requests: int, tokens: int, decode: int, context: int, work: int
    ) -> None:
        """Add to a slot (negative to take away)."""
        self.requests[slot] += requests
        self.tokens[slot] += tokens
        self.work[slot] += work
        self.decode[slot] += decode
        self.context[slot] += context


@dataclass(frozen=True, slots=True)
class UrgencyWork:
    """One urgency at one instant."""

    urgency: int
    tokens: Sequence[int]
    work: Sequence[int]
    decode: Sequence[int]
    context: Sequence[int]
    since_s: Sequence[float]

    def columns(self) -> tuple[Sequence[Any], ...]:
        """Without the urgency, in the order of the fields."""
        return self.tokens, self.work, self.decode, self.context, self.since_s


@dataclass(frozen=True, slots=True)
class UrgencySnapshot:
    """All urgencies at one instant, the most urgent first.

    ``step_tokens``: token budget of each candidate's steps (0: it does not yield); ``stepped_s``:
    when it last ended one (-inf: never heard); ``token_s``: seconds per token of prefill (0: not
    known yet). ``elsewhere``: what other gateways have outstanding, of whatever urgency
    (None: nothing).
    """

    now_s: float
    lines: tuple[UrgencyWork, ...]
    step_tokens: Sequence[int]
    stepped_s: Sequence[float]
    token_s: float
    elsewhere: Ahead | None = None

    def ahead_of(self, urgency: int) -> Ahead | None:
        """See :class:`router.types.Orders`."""
        if all(line.urgency <= urgency for line in self.lines):
            return None
        if self.elsewhere is None:
            slots = len(self.step_tokens)
            ahead = Ahead([0] * slots, [0] * slots, [0] * slots, [0.0] * slots)
        else:
            ahead = Ahead(*([*column] for column in self.elsewhere))
        last = self.lines[-1].urgency
        for slot, step in enumerate(self.step_tokens):
            self._add(ahead, slot, urgency if step else last)
        return ahead

    def _add(self, ahead: Ahead, slot: int, urgency: int) -> None:
        """What a slot has of urgencies up to ``urgency``, and of the step under way."""
        left, later, begun = 0.0, 0, False
        for line in self.lines:
            work = line.work[slot]
            if line.urgency > urgency:
                later += work
                continue
            ahead.prefill_tokens[slot] += line.tokens[slot]
            ahead.decode_tokens[slot] += line.decode[slot]
            ahead.context_tokens[slot] += line.context[slot]
            # Only the most urgent work is being computed, and that from the next step on.
            if work and not left:
                begun = line.since_s[slot] <= self.stepped_s[slot]
                left = self._left(work, line.since_s[slot]) if begun else work
            else:
                left += work
        if later and not begun:
            left += self._step_left(slot, later)
        ahead.prefill_work[slot] += left

    def _left(self, work: int, since_s: float) -> float:
        if self.token_s <= 0.0:
            return float(work)
        done = (self.now_s - since_s) / self.token_s
        return max(0.0, work - done) if done < _OVERDUE * work else float(work)

    def _step_left(self, slot: int, later: int) -> float:
        """Tokens of the step under way, which computes ``later`` work, that are still to do."""
        step = min(self.step_tokens[slot], later)
        done = (self.now_s - self.stepped_s[slot]) / self.token_s if self.token_s > 0.0 else -1.0
        return max(0.0, step - done) if 0.0 <= done < _OVERDUE * step else step / 2

    def only(self, slots: Sequence[int]) -> UrgencySnapshot:
        """See :class:`router.types.Orders`."""

        def pick(column: Any) -> list[Any]:
            return [column[slot] for slot in slots]

        return UrgencySnapshot(
            self.now_s,
            tuple(UrgencyWork(line.urgency, *map(pick, line.columns())) for line in self.lines),
            pick(self.step_tokens),
            pick(self.stepped_s),
            self.token_s,
            Ahead(*map(pick, self.elsewhere)) if self.elsewhere is not None else None,
        )


def work_of(columns: Mapping[int, UrgencyColumns]) -> tuple[UrgencyWork, ...]:
    """Copies of the urgencies that have something outstanding."""
    return tuple(
        UrgencyWork(
            urgency, line.tokens[:], line.work[:], line.decode[:], line.context[:], line.since_s[:]
        )
        for urgency, line in sorted(columns.items())
        if any(line.requests)
    )
