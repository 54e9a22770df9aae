"""What a week costs at least, whoever decides: lower bounds, and a schedule that comes near one.

The bound is that of the fluid model itself: whole replicas of the kind whose work costs least, each
paid from the time that it is asked for, the same table of what share is in time at a load, and what
a tick cannot do waits for the next. The week is known beforehand, so nothing is bought for what
does not come, and which requests are late is chosen, too, as long as the share in time is kept.

Cost is minimised over all schedules less a price for each request in time, and for each second of
batch work. For given prices a dynamic programme over replicas and what waits finds the least. By
weak duality of Lagrange's relaxation that is at no price more than what the cheapest schedule costs
that keeps the limits; the prices at which it is largest are looked for. Where the fluid model is
relaxed, it is in favour of the bound: what waits is rounded down, and what is more than
``_WAITING`` replicas do in a tick is forgotten; start-ups take the shortest time there is; batch
work may be done at any time of the week, also before it came.

What is known of the week is an argument. With the week's own ticks it is every burst. With several
other draws of the same rates it is the rates alone, each client's in each ten minutes of the whole
week: the programme then minimises the mean over the draws. It still sees what waits, and what it
asks for then is there at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from load_tests.autoscaling.fleet import PoolKind
from load_tests.autoscaling.traces import Ticks
from weir.autoscaling.report import Decision, Explanation, ModelState

#: Start-up times are drawn from 0.9 to 1.1 of their mean.
_SHORTEST, _LONGEST = 0.9, 1.1
#: What waits, in what one replica does in a tick: steps, and the most that is remembered.
_STEP, _WAITING = 0.25, 6.0
_GOLDEN = (math.sqrt(5) - 1) / 2
_TRIES = 14
#: The price of batch work and that of requests are looked for in turns.
_ROUNDS = 2
#: At a price a little above the best one the share in time is kept.
_ABOVE = 1.03


@dataclass(frozen=True, slots=True)
class Limits:
    """``met``: share of urgent requests in time. ``late``: share of the batch tokens that may be
    done later than ``within_s`` after they came. ``ttft_s``: longest wait of what is in time."""

    met: float
    late: float
    within_s: float
    ttft_s: float


@dataclass(frozen=True, slots=True)
class Bound:
    """``usd``: no schedule that keeps the limits costs less. ``counts``: replicas by tick of a
    schedule that comes near it, where every burst is known."""

    usd: float
    counts: np.ndarray


class Week:
    """The programme over one week. ``known``: the week's own ticks alone, or several draws of its
    rates. An axis of states is the number of ready replicas, the other one what waits."""

    def __init__(self, kind: PoolKind, known: Sequence[Ticks], limits: Limits) -> None:
        capacity, self._limits, self._tick_s = kind.table.capacity, limits, known[0].tick_s
        self.counts = np.arange(kind.state.most + 1)
        self._waiting = np.arange(round(_WAITING / _STEP) + 1) * _STEP
        self._rows = np.array([row.met for row in kind.table.rows])
        self._per_row = 1 / (kind.table.rows[1].load - kind.table.rows[0].load)
        self._usable = capacity.usable
        speeds = capacity.prefill_tokens_per_s, capacity.decode_tokens_per_s
        #: By draw and tick: requests, and what they need in what one replica does in a tick.
        self._requests = np.array([ticks.urgent_requests for ticks in known])
        self._needs = np.array(
            [_seconds(t.urgent_prompts, t.urgent_outputs, speeds) for t in known]
        )
        self._needs /= self._tick_s
        self._usd = self.counts * kind.state.usd_per_hour * self._tick_s / 3600
        paid = max(0, math.ceil(_SHORTEST * kind.state.start_s / self._tick_s) - 1)
        self._start_usd = paid * self._usd
        self.met_goal = limits.met * float(self._requests.mean(axis=0).sum())
        self.has_batch = bool(known[0].batch_requests.any())
        self.batch_goal_s = _batch_goal_s(known[0], speeds, limits)
        self.usd_per_second = kind.state.usd_per_hour / 3600

    def least(self, met_usd: float, batch_usd: float = 0.0) -> float:
        """Cost less what requests in time and batch work earn, of the cheapest schedule."""
        later = np.zeros((len(self.counts), len(self._waiting)))
        for tick in range(self._needs.shape[1] - 1, -1, -1):
            later = self._tick(tick, self._changed(later), met_usd, batch_usd)
        return float(later[:, 0].min())

    def schedule(self, met_usd: float, batch_usd: float = 0.0) -> np.ndarray:
        """Replicas by tick of that schedule, of the first draw."""
        length = self._needs.shape[1]
        values = np.zeros((length + 1, len(self.counts), len(self._waiting)), dtype=np.float32)
        for tick in range(length - 1, -1, -1):
            later = self._changed(values[tick + 1].astype(float))
            values[tick] = self._tick(tick, later, met_usd, batch_usd)
        found, waits = np.empty(length, dtype=int), 0
        before = np.zeros(len(self.counts))  # the first ones are there for nothing
        for tick in range(length):
            count = int((values[tick][:, waits] + before).argmin())
            found[tick] = count
            waits = int(self._left(self._needs[0, tick])[count, waits])
            before = np.maximum(0.0, self._start_usd - self._start_usd[count])
        return found

    def _changed(self, later: np.ndarray) -> np.ndarray:
        """The least from each number of replicas on, with start-ups; replicas go for nothing."""
        paid = self._start_usd[:, None]
        risen = np.flip(np.minimum.accumulate(np.flip(later + paid, 0), axis=0), 0) - paid
        least: np.ndarray = np.minimum(risen, np.minimum.accumulate(later, axis=0))
        return least

    def _tick(self, tick: int, later: np.ndarray, met_usd: float, batch_usd: float) -> np.ndarray:
        """Of each state at the beginning of a tick, the mean over draws."""
        total = np.zeros_like(later)
        counts, waiting = self.counts[:, None], self._waiting[None, :]
        for requests, need in zip(self._requests[:, tick], self._needs[:, tick], strict=True):
            load = np.where(counts > 0, (waiting + need) / np.maximum(counts, 1), np.inf)
            row = np.minimum(len(self._rows) - 1, np.ceil(load * self._per_row - 1e-9))
            in_time = waiting * self._tick_s <= self._limits.ttft_s * counts
            earned = met_usd * requests * self._rows[row.astype(int)] * (in_time & (counts > 0))
            if batch_usd:
                left = np.maximum(0.0, self._usable * counts - waiting - need)
                earned = earned + batch_usd * self._tick_s * left
            total += np.take_along_axis(later, self._left(need), axis=1) - earned
        least: np.ndarray = self._usd[:, None] + total / len(self._needs)
        return least

    def _left(self, need: float) -> np.ndarray:
        """Index of what waits after a tick, of each state."""
        over = (self._waiting[None, :] + need - self.counts[:, None]) / _STEP + 1e-9
        left: np.ndarray = np.clip(over, 0, len(self._waiting) - 1).astype(int)
        return left


def _seconds(prompts: np.ndarray, outputs: np.ndarray, speeds: tuple[float, float]) -> np.ndarray:
    seconds: np.ndarray = prompts / speeds[0] + outputs / speeds[1]
    return seconds


def _batch_goal_s(ticks: Ticks, speeds: tuple[float, float], limits: Limits) -> float:
    """Batch work that has to be done within the week: all but what came in the last hours, less
    the share of its tokens that may be late, at the most that a token takes."""
    last = round(limits.within_s / ticks.tick_s)
    prompts, outputs = ticks.batch_prompts[:-last], ticks.batch_outputs[:-last]
    tokens = float(prompts.sum() + outputs.sum())
    needs_s = float(_seconds(prompts, outputs, speeds).sum())
    return max(0.0, needs_s - limits.late * tokens / min(speeds))


def lower_bound(week: Week, usd_per_request: float, with_schedule: bool = False) -> Bound:
    """``usd_per_request``: at the planned load; the best price is looked for below 64 of it.
    ``with_schedule``: with the cheapest one at a price a little above the best, or without."""
    most, batch = 64 * usd_per_request, 0.0

    def at(price: float, batch: float) -> float:
        goals = price * week.met_goal + batch * week.batch_goal_s
        return week.least(price, batch) + goals

    price, usd = _highest(partial(at, batch=0.0), most)
    for _ in range(_ROUNDS if week.has_batch else 0):
        batch, _ = _highest(partial(at, price), 3 * week.usd_per_second)
        price, usd = _highest(partial(at, batch=batch), most)
    counts = week.schedule(_ABOVE * price, batch) if with_schedule else np.zeros(0, dtype=int)
    return Bound(usd, counts)


def _highest(value: Callable[[float], float], most: float) -> tuple[float, float]:
    """Where a concave function is largest in [0, ``most``], and how large, as far as some tries
    tell: by golden sections of the square root, since prices are low in the range."""
    low, high = 0.0, math.sqrt(most)
    found: dict[float, float] = {}

    def at(root: float) -> float:
        if root not in found:
            found[root] = value(root * root)
        return found[root]

    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    for _ in range(_TRIES - 1):
        if at(left) < at(right):
            low, left, right = left, right, left + _GOLDEN * (high - left)
        else:
            high, left, right = right, low + _GOLDEN * (right - low), left
    best = max(found, key=lambda root: found[root])
    return best * best, found[best]


class Scheduled:
    """A policy that has the replicas of a schedule ready in time, whatever comes."""

    def __init__(self, name: str, counts: np.ndarray, tick_s: float, start_s: float) -> None:
        self._name, self._counts, self._tick_s = name, counts, tick_s
        self._ahead = math.ceil(_LONGEST * start_s / tick_s)

    @property
    def at_first(self) -> int:
        """Replicas to begin with."""
        return int(self._counts[: self._ahead + 1].max())

    def decide(self, model: ModelState, now_s: float, state: Any) -> Decision:
        """As a policy of the registry."""
        number = min(round(now_s / self._tick_s) + 1, len(self._counts) - 1)
        most = int(self._counts[number : number + self._ahead].max())
        return Decision({self._name: most}, Explanation())
