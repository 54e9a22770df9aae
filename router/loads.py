"""How much members have to do: the own ledger, what they tell of themselves, and what other
gateways have in flight there; as the columns that a view has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.latency import LatencyBook
from router.ledger import Ledger
from router.snapshot import Ahead, Columns, Fleet
from router.types import LatencyFit, ReplicaInfo, ReplicaStats
from router.urgency import UrgencySnapshot

#: Replicas repeat what others have in flight there every second; older is not believed.
ELSEWHERE_MAX_AGE_S = 3.0


class Loads:
    """Columns have the members' order, as :meth:`align` was told it last."""

    def __init__(self, ledger: Ledger, latency: LatencyBook, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._latency = latency
        self._clock = clock
        self.fleet = Fleet(())
        self._slots: dict[str, int] = {}
        self._stats: list[ReplicaStats] = []
        self._most_blocks_used: int | None = None  # of ``_stats``; None: to be found out anew
        self._stepped_s: list[float] = []
        self._elsewhere_s = float("-inf")  # when a replica last told of other gateways' work
        self._fits: list[LatencyFit] = []
        self._fits_version = -1

    def align(self, members: Sequence[ReplicaInfo]) -> None:
        """These are the members now; what is known of others is forgotten."""
        ids = tuple(info.replica_id for info in members)
        known = {rid: self._stats[slot] for rid, slot in self._slots.items()}
        self._stats = [known.get(rid, ReplicaStats()) for rid in ids]
        self._most_blocks_used = None
        stepped = {rid: self._stepped_s[slot] for rid, slot in self._slots.items()}
        self._stepped_s = [stepped.get(rid, float("-inf")) for rid in ids]
        self._slots = {rid: slot for slot, rid in enumerate(ids)}
        self._ledger.align(ids)
        self.fleet = Fleet(tuple(members))
        self._fits_version = -1

    def told(self, replica_id: str, stats: ReplicaStats) -> None:
        """Keep a replica's own view of itself; ignored for strangers."""
        slot = self._slots.get(replica_id)
        if slot is not None:
            self._stats[slot] = stats
            self._most_blocks_used = None
            if stats.elsewhere.requests:
                self._elsewhere_s = stats.at_s

    def stepped(self, replica_id: str) -> None:
        """Tokens came from a replica: its engine has just ended a step."""
        slot = self._slots.get(replica_id)
        if slot is not None:
            now_s = self._clock()
            self._ledger.stepped(slot, self._stepped_s[slot], now_s)
            self._stepped_s[slot] = now_s

    def columns(self, now_s: float) -> Columns:
        """Of all members, as they stand now."""
        ledger = self._ledger
        own = (
            ledger.requests[:],
            ledger.prefill_tokens[:],
            ledger.decode_tokens[:],
            ledger.context_tokens[:],
        )
        token_s = self._latency.fit().ttft[1] / 1000.0
        work = ledger.work_left(now_s, token_s)
        if now_s - self._elsewhere_s < ELSEWHERE_MAX_AGE_S:
            self._add_elsewhere(now_s, work, *own)
        urgencies = self._urgencies(now_s, token_s, own) if self.fleet.yields else None
        columns = Columns(
            self.fleet,
            *own,
            self._stats[:],
            self._latency_column,
            work,
            urgencies,
            self._most_blocks_used,
        )
        # Stats come once a second from each replica, decisions far more often.
        self._most_blocks_used = columns.most_blocks_used
        return columns

    def _urgencies(
        self, now_s: float, token_s: float, every: tuple[list[int], ...]
    ) -> UrgencySnapshot | None:
        """Work by urgency, where that makes a difference. ``every``: requests, prefill, decode and
        context tokens of all gateways."""
        ledger = self._ledger
        lines = ledger.lines()
        if not lines:
            return None
        elsewhere = None
        if now_s - self._elsewhere_s < ELSEWHERE_MAX_AGE_S:
            _, prefill, decode, context = every
            others = (
                _difference(prefill, ledger.prefill_tokens),
                _difference(decode, ledger.decode_tokens),
                _difference(context, ledger.context_tokens),
            )
            elsewhere = Ahead(*others, [float(tokens) for tokens in others[0]])
        return UrgencySnapshot(
            now_s,
            lines,
            [info.yielding_step_tokens for info in self.fleet.infos],
            self._stepped_s[:],
            token_s,
            elsewhere,
        )

    def _add_elsewhere(
        self,
        now_s: float,
        work: list[float],
        requests: list[int],
        prefill: list[int],
        decode: list[int],
        context: list[int],
    ) -> None:
        """Add to the own ledger's columns what other gateways have in flight."""
        oldest_s = now_s - ELSEWHERE_MAX_AGE_S
        for slot, stats in enumerate(self._stats):
            if stats.elsewhere.requests and stats.at_s > oldest_s:
                requests[slot] += stats.elsewhere.requests
                prefill[slot] += stats.elsewhere.prefill_tokens
                decode[slot] += stats.elsewhere.decode_tokens
                context[slot] += stats.elsewhere.context_tokens
                work[slot] += stats.elsewhere.prefill_tokens

    def _latency_column(self) -> list[LatencyFit]:
        if self._fits_version != self._latency.version:
            self._fits = [self._latency.fit(rid) for rid in self.fleet.ids]
            self._fits_version = self._latency.version
        return self._fits


def _difference(every: list[int], own: list[int]) -> list[int]:
    return [a - b for a, b in zip(every, own, strict=True)]
