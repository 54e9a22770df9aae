"""The ways that a request can go, and what each would take: pure, over one snapshot.

A request is computed whole by one replica, or its prompt by one and its answer by another (a pair).
The pair is chosen jointly: its first token waits for the prefill replica's queue, for what that
replica does not hold of the prompt, and for the transfer of what the decode replica does not hold;
so neither side has a best choice of its own.

Every way has a cost without a unit, made of

- how late the request's own first token and own later tokens would be
  (:class:`~router.disaggregation.pace.Prices`);
- how much later everybody else's would be: the answers that decode where the prompt is computed
  wait for it, those that decode beside the new answer take longer steps, and who waits in the
  gateway is let in later, the later the fewer replicas share the work;
- the gaps that a prompt makes: each of its steps is one in every answer beside it, as long as the
  step. Means do not show them, so that they weigh little, and decide while means are in time;
- a little of the expected work of :mod:`router.scorers.expected_work`, which decides while nothing
  is near its target: what is computed again is work that someone else waits for.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import nsmallest
from operator import attrgetter
from typing import NamedTuple

from router.disaggregation.pace import PaceBook, Prices, ReplicaPace, Slo
from router.disaggregation.transfer import TransferBook
from router.ledger import prefill_work
from router.policy import Policy
from router.scorers.expected_work import ExpectedWork, ExpectedWorkParams
from router.scoring import has_room
from router.snapshot import Columns, Fleet, Snapshot
from router.types import Decision, PairDecision, RouteRequest

#: How many replicas of either side are looked at together.
_JOINTLY = 4


@dataclass(frozen=True, slots=True)
class Way:
    """``replica`` answers, ``prefill`` computes the prompt (None: the same does); both are slots of
    the fleet. ``cost``: see the module; the times are predictions (0: nothing is learned yet)."""

    replica: int
    prefill: int | None
    cost: float = 0.0
    ttft_s: float = 0.0
    tpot_s: float = 0.0
    transfer_s: float = 0.0


class _Prefill(NamedTuple):
    """A prompt computed in a slot: seconds to its end, own seconds, what it costs."""

    slot: int
    first_s: float
    cost: float


class _Decode(NamedTuple):
    """An answer generated in a slot: seconds per token, seconds to fetch the prompt's blocks,
    seconds until the prompts that are there already are computed, what it costs."""

    slot: int
    tpot_s: float
    transfer_s: float
    ahead_s: float
    cost: float


class Ways:
    """Of ``request`` now. ``saturated``: replicas that admission allows no more prompts;
    ``waiting``: requests in the gateway's queue."""

    def __init__(
        self,
        request: RouteRequest,
        snapshot: Snapshot,
        saturated: Collection[str],
        *,
        policy: Policy,
        rng: random.Random,
        slo: Slo,
        pace: PaceBook,
        transfers: TransferBook,
        fleets: dict[tuple[str, ...], Fleet],
        waiting: int = 0,
    ) -> None:
        self.request = request
        self.snapshot = snapshot
        self.columns: Columns = snapshot.columns
        self.fleet: Fleet = snapshot.columns.fleet
        self._held = snapshot.held
        self.held: Mapping[str, int] = snapshot.overlap_blocks
        self.slo = slo
        self._waited_s = max(0.0, snapshot.now_s - request.arrival_s)
        self._saturated = saturated
        self._policy = policy
        self._rng = rng
        self._pace = pace
        self._transfers = transfers
        self._fleets = fleets
        self._waiting = waiting
        self._longest: dict[int, float] = {}
        self._decoded: dict[int, _Decode] = {}

    # Who can do what.

    @cached_property
    def prefillers(self) -> list[int]:
        """Slots that may compute a prompt for another replica."""
        return self._slots("decode")

    @cached_property
    def answerers(self) -> list[int]:
        """Slots that may generate an answer."""
        return self._slots("prefill")

    def _slots(self, but: str) -> list[int]:
        return [i for i, info in enumerate(self.fleet.infos) if info.role != but]

    @cached_property
    def can_pair(self) -> bool:
        """Whether there are two replicas that can be a pair at all, with room or without."""
        prefillers, answerers = self.prefillers, self.answerers
        return bool(prefillers and answerers) and len({*prefillers, *answerers}) > 1

    @cached_property
    def wholes(self) -> list[int]:
        """Slots that may take the whole request and have room for its prompt. Prefill replicas are
        among them only when there is nobody else."""
        return self._unsaturated(self.answerers or self.prefillers)

    def _unsaturated(self, slots: Iterable[int]) -> list[int]:
        ids, saturated = self.fleet.ids, self._saturated
        return [i for i in slots if ids[i] not in saturated]

    def cached_tokens(self, slot: int) -> int:
        """Leading prompt tokens that a replica holds; the last one is always computed."""
        blocks = self.held.get(self.fleet.ids[slot], 0)
        return max(0, min(blocks * self.fleet.block_sizes[slot], self.request.prompt_tokens - 1))

    def most_cached_tokens(self, slots: Iterable[int]) -> int:
        """Of the best holder."""
        return max((self.cached_tokens(slot) for slot in slots), default=0) if self.held else 0

    # For rules that do not compare costs.

    @cached_property
    def whole(self) -> Way | None:
        """On the replica that the routing policy chooses; None: none has room."""
        slots = self.wholes
        if not slots:
            return None
        snapshot = self._narrowed(slots)
        chosen = self._policy.choose(self.request, snapshot, self._rng)
        return Way(self.fleet.slots[chosen.replica_id], None)

    def pair(self, prices: Prices) -> Way | None:
        """The pair of least cost; None: no pair has room."""
        return min(self._pairs(self._unsaturated(self.prefillers), prices), key=_cost, default=None)

    def best(self, prices: Prices, answering_share: float = 0.0) -> Way | None:
        """The way of least cost. None: that has no room now, and whatever has room costs more than
        waiting for it (or nothing has). Whole requests may go to prefill replicas, too, while
        these give no more than ``answering_share`` of their time to prompts, or if a token that
        waits for a step full of prompt is in time (0: never)."""
        slots = self.answerers or self.prefillers
        if answering_share:
            also = [i for i in self.prefillers if self._may_answer(i, prices, answering_share)]
            slots = sorted({*slots, *also})
        room = self._least(self._whole_ways(self._unsaturated(slots), prices))
        pair = self._least(self._pairs(self._unsaturated(self.prefillers), prices))
        now = self._least([way for way in (room, pair) if way is not None])
        later: list[Way] = []
        if room is None:
            later += self._whole_ways(slots, prices)
        if pair is None:
            later += self._pairs(self.prefillers, prices)
        if now is None or any(way.cost < now.cost for way in later):
            return None
        return now

    def _may_answer(self, slot: int, prices: Prices, share: float) -> bool:
        if not any(self._pace.steps.fit(self.fleet.ids[slot]).tpot):
            return False  # No answer has ended yet: it is not known how they fare anywhere.
        return self._busy(slot) <= share or self._longest_s(slot, prices) <= self.slo.tpot_s

    def _least(self, ways: Sequence[Way]) -> Way | None:
        if not ways:
            return None
        least = min(ways, key=_cost).cost
        ties = [way for way in ways if way.cost == least]
        return ties[0] if len(ties) == 1 else self._rng.choice(ties)

    # What they cost.

    def _whole_ways(self, slots: Sequence[int], prices: Prices) -> list[Way]:
        return [
            Way(
                prefill.slot,
                None,
                prefill.cost + decode.cost + self._first_cost(prefill.first_s, prices),
                prefill.first_s,
                decode.tpot_s,
            )
            for prefill, decode in zip(
                self._prefills(slots, prices), self._decodes(slots, prices), strict=True
            )
        ]

    def _pairs(self, prefillers: Sequence[int], prices: Prices) -> list[Way]:
        answerers = [i for i in self.answerers if has_room(self.request, self.columns, i)]
        if not answerers or not prefillers:
            return []
        target_s = self.slo.ttft_s

        def first(way: _Prefill) -> float:
            return way.cost + prices.lateness((self._waited_s + way.first_s) / target_s)

        def then(way: _Decode) -> float:
            return way.cost + prices.work * way.transfer_s / target_s

        some = nsmallest(_JOINTLY, self._prefills(prefillers, prices), key=first)
        others = nsmallest(_JOINTLY, self._decodes(answerers, prices), key=then)
        return [self._pair(p, d, prices) for p in some for d in others if p.slot != d.slot]

    def _pair(self, prefill: _Prefill, decode: _Decode, prices: Prices) -> Way:
        # Its last prompt token has its turn behind the prompts that are there.
        first_s = max(prefill.first_s + decode.transfer_s, decode.ahead_s) + decode.tpot_s
        first_s += 0.5 * self._busy(decode.slot) * self._stalls[self.fleet.infos[decode.slot].role]
        moved = prices.work * decode.transfer_s / self.slo.ttft_s
        cost = prefill.cost + decode.cost + moved + self._first_cost(first_s, prices)
        return Way(decode.slot, prefill.slot, cost, first_s, decode.tpot_s, decode.transfer_s)

    def _first_cost(self, first_s: float, prices: Prices) -> float:
        return prices.lateness((self._waited_s + first_s) / self.slo.ttft_s)

    def _prefills(self, slots: Sequence[int], prices: Prices) -> list[_Prefill]:
        if not slots:
            return []
        columns, prompt = self.columns, self.request.prompt_tokens
        found, count = [], len(slots)
        for slot, work in zip(slots, self._expected_work(slots), strict=True):
            cached, fit = self.cached_tokens(slot), columns.latency[slot]
            attention = self.fleet.infos[slot].attention_tokens
            own = prefill_work(prompt - cached, cached, attention)
            first_s = fit.ttft_s(columns.prefill_work[slot] + own, columns.requests[slot] + 1)
            token_s = max(0.0, fit.ttft[1] / 1000.0)
            pace = self._pace.of(self.fleet.ids[slot])
            cost = prices.work * work * token_s / self.slo.ttft_s
            cost += prices.waiting * self._delay(first_s, own * token_s / count, prices)
            if pace.decoding:
                cost += prices.others * self._stalled(pace, slot, own * token_s, prices)
            found.append(_Prefill(slot, first_s, cost))
        return found

    def _stalled(self, pace: ReplicaPace, slot: int, prompt_s: float, prices: Prices) -> float:
        """What it costs those who decode in a slot that a prompt of that many seconds is computed
        there: each of its steps is a gap in their answers, all of them together a delay."""
        step_s, longest_s = self._step_s(slot, 0, 0), self._longest_s(slot, prices)
        harm = pace.harm(step_s, prompt_s, longest_s, prices, self._pace.spread)
        if prices.gap_tokens:
            gaps, gap_s = self._gaps(slot, prompt_s, prices)
            harm += pace.gap_harm(step_s, gap_s, gaps, prices)
        return harm

    def _gaps(self, slot: int, prompt_s: float, prices: Prices) -> tuple[float, float]:
        """Steps that a prompt of that many seconds takes part in, and seconds of the longest."""
        plain_s, longest_s = self._plain_step_s(slot), self._longest_s(slot, prices)
        most_s = longest_s - plain_s
        gaps = max(1.0, math.ceil(prompt_s / most_s)) if most_s > 0.0 else 1.0
        return gaps, min(prompt_s + plain_s, longest_s)

    def _decodes(self, slots: Sequence[int], prices: Prices) -> list[_Decode]:
        for slot in slots:
            if slot not in self._decoded:
                self._decoded[slot] = self._decode(slot, prices)
        return [self._decoded[slot] for slot in slots]

    def _decode(self, slot: int, prices: Prices) -> _Decode:
        request = self.request
        tpot_s = self._step_s(slot, 1, request.prompt_tokens)
        cost = self._own_lateness(slot, tpot_s, prices)
        pace = self._pace.of(self.fleet.ids[slot])
        if pace.decoding:
            before_s = self._step_s(slot, 0, 0)
            longer_s = max(0.0, tpot_s - before_s) * request.expected_output_tokens
            spread = self._pace.spread
            cost += prices.others * pace.harm(before_s, longer_s, math.inf, prices, spread)
        missing = request.prompt_tokens - self.cached_tokens(slot)
        token_s = max(0.0, self.columns.latency[slot].ttft[1] / 1000.0)
        ahead_s = self.columns.prefill_work[slot] * token_s
        return _Decode(slot, tpot_s, self._transfers.predict_s(missing), ahead_s, cost)

    def _delay(self, first_s: float, delay_s: float, prices: Prices) -> float:
        """What it costs those who wait in the gateway that each is let in ``delay_s`` later; they
        are taken to be as late as this one."""
        if not self._waiting:
            return 0.0
        before = (self._waited_s + first_s) / self.slo.ttft_s
        after = before + delay_s / self.slo.ttft_s
        return self._waiting * (prices.lateness(after) - prices.lateness(before))

    def _own_lateness(self, slot: int, tpot_s: float, prices: Prices) -> float:
        """Of the answer's own tokens. Prompts do not slow it down evenly: an answer meets one or
        does not, and a short one that does is late."""
        target_s = self.slo.tpot_s
        busy = self._busy(slot)
        if not busy:
            return prices.lateness(tpot_s / target_s)
        step_s = tpot_s * (1.0 - busy)
        stall_s = max(self._stalls[self.fleet.infos[slot].role], 1e-6)
        cost, alone = 0.0, prices.lateness(step_s / target_s)
        parts, longest_s = self._pace.spread.parts, self._longest_s(slot, prices)
        for part in parts:
            tokens = max(1.0, part * self.request.expected_output_tokens)
            met = tokens * tpot_s * busy / stall_s  # prompts, on average
            once = 1.0 - math.exp(-met)
            # Given that it meets any, it meets so many.
            late_s = step_s + met / max(once, 1e-9) * stall_s / tokens
            late = prices.lateness(min(late_s, longest_s) / target_s)
            cost += (once * late + (1.0 - once) * alone) / len(parts)
        if prices.gap_tokens:
            gaps, gap_s = self._gaps(slot, stall_s, prices)
            share = min(1.0, prices.gap_tokens * gaps * tpot_s * busy / stall_s)
            cost += share * max(0.0, prices.lateness(gap_s / target_s) - alone)
        return cost

    def _longest_s(self, slot: int, prices: Prices) -> float:
        """Seconds for a token whose step is full of prompt."""
        found = self._longest.get(slot)
        if found is None:
            found = self._longest[slot] = self._full_step_s(slot, prices)
        return found

    def _full_step_s(self, slot: int, prices: Prices) -> float:
        token_s = max(0.0, self.columns.latency[slot].ttft[1] / 1000.0)
        tokens = self.fleet.infos[slot].yielding_step_tokens or prices.step_tokens
        return tokens * token_s + self._plain_step_s(slot)

    def _plain_step_s(self, slot: int) -> float:
        """Seconds of a step without a prompt."""
        fit = self._pace.steps.fit(self.fleet.ids[slot])
        return fit.tpot_s(self.columns.requests[slot] + 1, self.columns.context_tokens[slot])

    def _busy(self, slot: int) -> float:
        return self._shares[slot]

    def _step_s(self, slot: int, requests: int, context_tokens: int) -> float:
        """Seconds per token with so many more requests and so much more context."""
        replica_id, columns = self.fleet.ids[slot], self.columns
        step_s = self._pace.steps.fit(replica_id).tpot_s(
            columns.requests[slot] + requests, columns.context_tokens[slot] + context_tokens
        )
        return step_s / (1.0 - self._busy(slot))

    @cached_property
    def _shares(self) -> list[float]:
        """Per slot, the part of its time that it gives to prompts: halfway between what it has done
        lately and what replicas of its role do on average. The former alone says little, because
        the one with the least to do gets the next prompt."""
        now_s, infos = self.snapshot.now_s, self.fleet.infos
        own = [self._pace.of(info.replica_id).share(now_s) for info in infos]
        by_role: dict[str, list[float]] = {}
        for info, share in zip(infos, own, strict=True):
            by_role.setdefault(info.role, []).append(share)
        means = {role: sum(shares) / len(shares) for role, shares in by_role.items()}
        return [0.5 * (share + means[i.role]) for i, share in zip(infos, own, strict=True)]

    @cached_property
    def _stalls(self) -> dict[str, float]:
        """Seconds of the prompts that slow answers down, per role. A second of prompt that an
        answer meets is one of a long prompt more often than prompts are long, so that each counts
        by its length: beside one document and sixteen questions it is the document."""
        now_s = self.snapshot.now_s
        sums: dict[str, tuple[float, float]] = {}
        for info in self.fleet.infos:
            busy_s, squared = sums.get(info.role, (0.0, 0.0))
            more_s, more = self._pace.of(info.replica_id).sums(now_s)
            sums[info.role] = (busy_s + more_s, squared + more)
        return {role: more / busy_s if busy_s else 0.0 for role, (busy_s, more) in sums.items()}

    def _expected_work(self, slots: Sequence[int]) -> Sequence[float]:
        snapshot = self._narrowed(slots)
        return _EXPECTED_WORK.costs(self.request, snapshot)

    def _narrowed(self, slots: Sequence[int]) -> Snapshot:
        """What a policy sees of these candidates alone."""
        columns, _ = self._only(slots)
        work, now_s = self.snapshot.adapter_work, self.snapshot.now_s
        own = None if work is None else [work[slot] for slot in slots]
        return Snapshot(now_s, overlap_blocks=self._held, columns=columns, adapter_work=own)

    def _only(self, slots: Sequence[int]) -> tuple[Columns, Fleet]:
        if len(slots) == len(self.fleet.ids):
            return self.columns, self.fleet
        key = tuple(self.fleet.ids[slot] for slot in slots)
        fleet = self._fleets.get(key)
        if fleet is None:
            fleet = self._fleets[key] = Fleet([self.fleet.infos[slot] for slot in slots])
        return self.columns.only(slots, fleet), fleet

    def decision(self, way: Way, reason: str) -> Decision:
        """As the router reserves it."""
        ids = self.fleet.ids
        replica_id = ids[way.replica]
        blocks = self.held.get(replica_id, 0)
        if way.prefill is None:
            return Decision(replica_id, reason, blocks)
        prefill_id = ids[way.prefill]
        return PairDecision(replica_id, reason, blocks, prefill_id, self.held.get(prefill_id, 0))


_EXPECTED_WORK = ExpectedWork(ExpectedWorkParams())
_cost = attrgetter("cost")
