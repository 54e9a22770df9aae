"""The in-flight ledger: what was dispatched where and has not finished.

Every reservation is freed exactly once, whichever of finish, error, cancel or replica death
comes first; later calls change nothing, also when a replica of the same id has come back since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.types import Decision, ReplicaLoad, RouteRequest


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a request found when it was dispatched, itself included, and when (monotonic)."""

    at_s: float = 0.0
    prefill_tokens: int = 0
    requests: int = 0
    context_tokens: int = 0


class Observer(Protocol):
    """Learns from what reservations see of time; :mod:`router.latency` is one."""

    def first_token(self, replica_id: str, outlook: Outlook, ttft_s: float) -> None: ...

    def finished(self, replica_id: str, outlook: Outlook, tpot_s: float, tokens: int) -> None: ...


class _Account:
    """One replica's place in the ledger's columns; ``slot`` is -1 once it is gone."""

    __slots__ = ("replica_id", "slot")

    def __init__(self, replica_id: str, slot: int) -> None:
        self.replica_id = replica_id
        self.slot = slot


class Reservation:
    """One request's share of a replica's load. Owned by the request that made it."""

    __slots__ = (
        "_account",
        "_after_first",
        "_decode_left",
        "_first_s",
        "_generated",
        "_ledger",
        "_prefill_left",
        "_released",
        "decision",
        "outlook",
        "request",
    )

    def __init__(
        self,
        ledger: Ledger,
        account: _Account,
        request: RouteRequest,
        decision: Decision,
        prefill_tokens: int,
        outlook: Outlook,
    ) -> None:
        self._ledger = ledger
        self._account = account
        self.request = request
        self.decision = decision
        self.outlook = outlook
        self._prefill_left = prefill_tokens
        self._decode_left = request.expected_output_tokens
        self._generated = 0
        self._after_first = 0
        self._first_s = -1.0
        self._released = False

    @property
    def replica_id(self) -> str:
        return self.decision.replica_id

    @property
    def released(self) -> bool:
        return self._released

    def progress(self, generated_tokens: int) -> None:
        """``generated_tokens`` more tokens arrived: the prefill is done, less decode is left.

        A request that outlives its expected length keeps one decode token outstanding.
        """
        if self._released:
            return
        if self._first_s >= 0.0:
            self._after_first += generated_tokens
        elif generated_tokens > 0:
            self._first_s = self._ledger.observe_first(self)
        prefill, self._prefill_left = self._prefill_left, 0
        left = max(1, self._decode_left - generated_tokens)
        decode, self._decode_left = self._decode_left - left, left
        self._generated += generated_tokens
        self._ledger.change(self._account, 0, -prefill, -decode, generated_tokens)

    def release(self) -> bool:
        """Free everything; True for the call that did it, False ever after."""
        if self._released:
            return False
        self._released = True
        context = self.request.prompt_tokens + self._generated
        self._ledger.change(self._account, -1, -self._prefill_left, -self._decode_left, -context)
        if self._after_first > 0:
            self._ledger.observe_finish(self, self._first_s, self._after_first)
        return True


class Ledger:
    """Outstanding work per replica, as dispatched by this process, in columns.

    ``clock`` (monotonic seconds) and ``observer`` are for learning latencies only.
    """

    def __init__(
        self, clock: Callable[[], float] | None = None, observer: Observer | None = None
    ) -> None:
        self._clock = clock or (lambda: 0.0)
        self._observer = observer
        self._accounts: dict[str, _Account] = {}
        self.requests: list[int] = []
        self.prefill_tokens: list[int] = []
        self.decode_tokens: list[int] = []
        self.context_tokens: list[int] = []

    def align(self, replica_ids: Sequence[str]) -> None:
        """Keep these replicas, in this order (column *i* is ``replica_ids[i]``); what was
        outstanding on all others is forgotten, and late releases change nothing."""
        kept = set(replica_ids)
        for replica_id, gone in self._accounts.items():
            if replica_id not in kept:
                gone.slot = -1
        keep = [self._accounts.get(rid) or _Account(rid, -1) for rid in replica_ids]
        slots = [account.slot for account in keep]
        for column in (
            self.requests,
            self.prefill_tokens,
            self.decode_tokens,
            self.context_tokens,
        ):
            column[:] = [column[slot] if slot >= 0 else 0 for slot in slots]
        for slot, account in enumerate(keep):
            account.slot = slot
        self._accounts = {account.replica_id: account for account in keep}

    def reserve(
        self, request: RouteRequest, decision: Decision, cached_tokens: int = 0
    ) -> Reservation:
        """Count ``request`` on the decided replica; ``cached_tokens`` need no prefill."""
        account = self._accounts.get(decision.replica_id)
        if account is None:
            self.align([*self._accounts, decision.replica_id])
            account = self._accounts[decision.replica_id]
        prefill = max(0, request.prompt_tokens - cached_tokens)
        self.change(account, 1, prefill, request.expected_output_tokens, request.prompt_tokens)
        slot = account.slot
        outlook = Outlook(
            self._clock(),
            self.prefill_tokens[slot],
            self.requests[slot],
            self.context_tokens[slot],
        )
        return Reservation(self, account, request, decision, prefill, outlook)

    def load(self, replica_id: str) -> ReplicaLoad:
        """Totals of one replica (zeros when nothing was ever dispatched to it)."""
        account = self._accounts.get(replica_id)
        if account is None:
            return ReplicaLoad()
        slot = account.slot
        return ReplicaLoad(
            self.requests[slot],
            self.prefill_tokens[slot],
            self.decode_tokens[slot],
            self.context_tokens[slot],
        )

    def forget(self, replica_id: str) -> None:
        """The replica is gone: its totals go with it, late releases change nothing."""
        self.align([rid for rid in self._accounts if rid != replica_id])

    def change(
        self, account: _Account, requests: int, prefill: int, decode: int, context: int
    ) -> None:
        """Add to a replica's totals (negative to take away); the departed are ignored."""
        slot = account.slot
        if slot < 0:
            return
        self.requests[slot] += requests
        self.prefill_tokens[slot] += prefill
        self.decode_tokens[slot] += decode
        self.context_tokens[slot] += context

    def observe_first(self, reservation: Reservation) -> float:
        """Tell the observer of a first token; returns now."""
        now_s = self._clock()
        if self._observer is not None:
            outlook = reservation.outlook
            self._observer.first_token(reservation.replica_id, outlook, now_s - outlook.at_s)
        return now_s

    def observe_finish(self, reservation: Reservation, first_s: float, tokens: int) -> None:
        """Tell the observer how fast the ``tokens`` behind the first chunk came."""
        if self._observer is not None:
            tpot_s = (self._clock() - first_s) / tokens
            self._observer.finished(reservation.replica_id, reservation.outlook, tpot_s, tokens)
