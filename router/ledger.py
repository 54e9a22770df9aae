"""The in-flight ledger: what was dispatched where and has not finished.

Every reservation is freed exactly once, whichever of finish, error, cancel or replica death
comes first; later calls change nothing, also when a replica of the same id has come back since.

Prefill is counted with what its attention costs, and as what of it is thought to be left by now.
Worth of the two together (simulated, 8 replicas, 3 seeds that are not reported): goodput 0 to 0.2 %
on a Mooncake-like trace and nothing that stands out of the noise on WEKA; TTFT p99 7 % lower at 0.9
of saturation and the same at it; of chat beside batch 8 % lower, beside documents 4 % higher.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from router.adapters import AdapterBook
from router.explaining import Candidate
from router.types import Decision, ReplicaLoad, RouteRequest
from router.urgency import UrgencyColumns, UrgencyWork, work_of


class Outlook(NamedTuple):
    """What a request found when it was dispatched, itself included, and when (monotonic)."""

    at_s: float = 0.0
    prefill_tokens: float = 0
    requests: int = 0
    context_tokens: int = 0


def prefill_work(new_tokens: float, cached_tokens: float, attention_tokens: float) -> float:
    """Prefill of ``new_tokens`` behind ``cached_tokens``, in tokens of a short prompt's prefill.

    A new token attends to all before it; with ``attention_tokens`` of them, that costs as much as
    everything else about it (infinite: attention is free).
    """
    return new_tokens * (1.0 + (cached_tokens + new_tokens / 2) / attention_tokens)


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
    """One request's share of a replica's load. Owned by the request that made it.

    ``prefill``: the reservation on the replica that computes the prompt, when that is another one
    (:class:`router.disaggregation.placing.PlacedReservation`); None here. ``explain``: how the
    decision saw its candidates; None unless the router is to explain its decisions.
    """

    __slots__ = (
        "_account",
        "_after_first",
        "_decode_left",
        "_earlier",
        "_first_s",
        "_generated",
        "_ledger",
        "_prefill_left",
        "_released",
        "_work_left",
        "decision",
        "explain",
        "outlook",
        "request",
    )

    prefill: Reservation | None = None

    def __init__(
        self,
        ledger: Ledger,
        account: _Account,
        request: RouteRequest,
        decision: Decision,
        prefill_tokens: int,
        prefill_work: int,
        outlook: Outlook,
        earlier: int,
    ) -> None:
        self._earlier = earlier
        self._ledger = ledger
        self._account = account
        self.request = request
        self.decision = decision
        self.explain: Callable[[], list[Candidate]] | None = None
        self.outlook = outlook
        self._prefill_left = prefill_tokens
        self._work_left = prefill_work
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

    def overtaken(self) -> bool:
        """Whether a more urgent request was dispatched to the replica since this one."""
        return self._ledger.dispatched_before(self._account, self.request.urgency) > self._earlier

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
            if self.request.adapter is not None:
                self._ledger.adapters.started(self.replica_id, self.request.adapter)
            if self.prefill is None:
                self._ledger.prefill_over(self._account, self.request.urgency)
        prefill, self._prefill_left = self._prefill_left, 0
        work, self._work_left = self._work_left, 0
        left = max(1, self._decode_left - generated_tokens)
        decode, self._decode_left = self._decode_left - left, left
        self._generated += generated_tokens
        urgency = self.request.urgency
        self._ledger.change(self._account, 0, -prefill, -decode, generated_tokens, -work, urgency)

    def prefill_done(self) -> None:
        """The replica that computes the prompt for another one has done so."""

    def transferred(self, tokens: int, transfer_s: float) -> None:
        """The answering replica has fetched the KV blocks of ``tokens`` tokens."""

    def transfer_failed(self) -> None:
        """It could not: it computes the prompt itself."""

    def release(self) -> bool:
        """Free everything; True for the call that did it, False ever after."""
        if self._released:
            return False
        self._released = True
        context = self.request.prompt_tokens + self._generated
        self._ledger.change(
            self._account,
            -1,
            -self._prefill_left,
            -self._decode_left,
            -context,
            -self._work_left,
            self.request.urgency,
        )
        if self._after_first > 0:
            self._ledger.observe_finish(self, self._first_s, self._after_first)
        if self.request.adapter is not None:
            self._ledger.adapters.released(self.replica_id, self.request.adapter)
        return True


R = TypeVar("R", bound=Reservation)


class Ledger:
    """Outstanding work per replica, as dispatched by this process, in columns.

    ``prefill_work`` counts what a prompt's attention costs, too (:func:`prefill_work`), and is
    what policies should compare; ``prefill_tokens`` are plain. ``clock``: monotonic seconds, for
    learning latencies and for :meth:`work_left`. ``adapters``: is told of those that are used.
    """

    def __init__(
        self,
        clock: Callable[[], float] | None = None,
        observer: Observer | None = None,
        adapters: AdapterBook | None = None,
    ) -> None:
        self.adapters = adapters if adapters is not None else AdapterBook()
        self._clock = clock or (lambda: 0.0)
        self._observer = observer
        self._accounts: dict[str, _Account] = {}
        self.requests: list[int] = []
        self.prefill_tokens: list[int] = []
        self.decode_tokens: list[int] = []
        self.context_tokens: list[int] = []
        self.prefill_work: list[int] = []
        #: When the prefill under way began: at a dispatch to an idle replica, or when the one
        #: before it was over.
        self.since_s: list[float] = []
        # Order → what is outstanding of it; empty while all that ever came was of one urgency.
        self._urgencies: dict[int, UrgencyColumns] = {}
        self._only_urgency: int | None = None
        # Slots with prefill outstanding: few of many replicas, most of the time.
        self._prefilling: set[int] = set()

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
            self.prefill_work,
        ):
            column[:] = [column[slot] if slot >= 0 else 0 for slot in slots]
        self.since_s[:] = [self.since_s[slot] if slot >= 0 else 0.0 for slot in slots]
        for line in self._urgencies.values():
            line.align(slots)
        for slot, account in enumerate(keep):
            account.slot = slot
        self._accounts = {account.replica_id: account for account in keep}
        self._prefilling = {slot for slot, work in enumerate(self.prefill_work) if work}

    def reserve(
        self,
        request: RouteRequest,
        decision: Decision,
        cached_tokens: int = 0,
        attention_tokens: float = math.inf,
        ahead: float | None = None,
        kind: type[R] = Reservation,  # type: ignore[assignment]
    ) -> R:
        """Count ``request`` on the decided replica; ``cached_tokens`` need no prefill. ``ahead``:
        prefill work that is thought to be left there (None: all that is outstanding)."""
        account = self._accounts.get(decision.replica_id)
        if account is None:
            self.align([*self._accounts, decision.replica_id])
            account = self._accounts[decision.replica_id]
        slot, now_s = account.slot, self._clock()
        prefill = max(0, request.prompt_tokens - cached_tokens)
        # Whole tokens: sums are then exact, and equal replicas stay equal.
        work = round(prefill_work(prefill, cached_tokens, attention_tokens))
        if ahead is None:
            ahead = self.prefill_work[slot]
        if not self.prefill_tokens[slot]:
            self.since_s[slot] = now_s
        if request.urgency != self._only_urgency:
            self._tell_apart(request.urgency)
        if self._urgencies:
            self._urgencies[request.urgency].dispatch(slot, now_s)
        expected = request.expected_output_tokens
        self.change(account, 1, prefill, expected, request.prompt_tokens, work, request.urgency)
        outlook = Outlook(now_s, ahead + work, self.requests[slot], self.context_tokens[slot])
        earlier = self.dispatched_before(account, request.urgency) if self._urgencies else 0
        if request.adapter is not None:
            self.adapters.dispatched(decision.replica_id, request.adapter)
        return kind(self, account, request, decision, prefill, work, outlook, earlier)

    def _tell_apart(self, urgency: int) -> None:
        """Requests of ``urgency`` come for the first time, or there are several
        urgencies already."""
        if self._only_urgency is None and not self._urgencies:
            self._only_urgency = urgency
            return
        if self._only_urgency is not None:
            self._urgencies = {self._only_urgency: self._all_in_one()}
            self._only_urgency = None
        if urgency not in self._urgencies:
            self._urgencies[urgency] = UrgencyColumns(len(self.requests))

    def _all_in_one(self) -> UrgencyColumns:
        """Everything outstanding, as one urgency's."""
        line = UrgencyColumns(len(self.requests))
        line.requests[:] = self.requests
        line.tokens[:] = self.prefill_tokens
        line.work[:] = self.prefill_work
        line.decode[:] = self.decode_tokens
        line.context[:] = self.context_tokens
        line.since_s[:] = self.since_s
        return line

    def lines(self) -> tuple[UrgencyWork, ...]:
        """What is outstanding of each urgency, the most urgent first."""
        if self._only_urgency is not None:
            if not any(self.requests):
                return ()
            return (
                UrgencyWork(
                    self._only_urgency,
                    self.prefill_tokens[:],
                    self.prefill_work[:],
                    self.decode_tokens[:],
                    self.context_tokens[:],
                    self.since_s[:],
                ),
            )
        return work_of(self._urgencies)

    def dispatched_before(self, account: _Account, urgency: int) -> int:
        """How many more urgent requests were ever dispatched to a replica (0: it is gone)."""
        slot = account.slot
        if slot < 0:
            return 0
        lines = self._urgencies.items()
        return sum(line.dispatched[slot] for other, line in lines if other < urgency)

    def work_left(self, now_s: float, token_s: float) -> list[float]:
        """Prefill work outstanding less what was done since it began, at ``token_s`` seconds a
        token (0: unknown, nothing is taken off). A replica that takes three times as long as
        expected is not believed to have done anything."""
        left: list[float] = [*self.prefill_work]
        if token_s > 0.0:
            for slot in self._prefilling:
                work = left[slot]
                done = (now_s - self.since_s[slot]) / token_s
                if done < 3.0 * work:
                    left[slot] = max(0.0, work - done)
        return left

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

    def change(
        self,
        account: _Account,
        requests: int,
        prefill: int,
        decode: int,
        context: int,
        work: int,
        urgency: int,
    ) -> None:
        """Add to a replica's totals (negative to take away); the departed are ignored."""
        slot = account.slot
        if slot < 0:
            return
        if self._urgencies:
            self._urgencies[urgency].change(slot, requests, prefill, decode, context, work)
        self.requests[slot] += requests
        self.prefill_tokens[slot] += prefill
        self.decode_tokens[slot] += decode
        self.context_tokens[slot] += context
        if work:
            self.prefill_work[slot] += work
            if self.prefill_work[slot]:
                self._prefilling.add(slot)
            else:
                self._prefilling.discard(slot)

    def prefill_over(self, account: _Account, urgency: int) -> None:
        """The prefill under way, of ``urgency``, ended; the next one begins."""
        if account.slot >= 0:
            now_s = self.since_s[account.slot] = self._clock()
            for other, line in self._urgencies.items():
                if other >= urgency:
                    line.since_s[account.slot] = now_s

    def stepped(self, slot: int, before_s: float, now_s: float) -> None:
        """The engine in ``slot`` ended a step, and the one before at ``before_s``: only now does it
        begin with what was dispatched to it in between."""
        for line in self._urgencies.values():
            if line.since_s[slot] > before_s:
                line.since_s[slot] = now_s

    def observe_first(self, reservation: Reservation) -> float:
        """Tell the observer of a first token; returns now. What more urgent requests overtook
        teaches nothing: where the engine yields, it waited for them too. Nor does that of a pair,
        whose prompt another replica computed."""
        now_s = self._clock()
        pair = reservation.prefill is not None
        if self._observer is not None and not pair and not reservation.overtaken():
            outlook = reservation.outlook
            self._observer.first_token(reservation.replica_id, outlook, now_s - outlook.at_s)
        return now_s

    def observe_finish(self, reservation: Reservation, first_s: float, tokens: int) -> None:
        """Tell the observer how fast the ``tokens`` behind the first chunk came."""
        if self._observer is not None:
            tpot_s = (self._clock() - first_s) / tokens
            self._observer.finished(reservation.replica_id, reservation.outlook, tpot_s, tokens)
