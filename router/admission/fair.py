"""Token-weighted fair sharing: virtual token counters.

After VTC (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024), with two
changes that keep its bound. (1) An account's *rank* is its actual service plus the cost still
reserved for its requests in flight, so the expected output counts from dispatch on and is
corrected as tokens come (the paper's length prediction). (2) The lift of a returning account
compares actual service only, which never decreases; so the least service among the active never
decreases either, and an over-estimate that is refunded later cannot pull a newcomer down with it.

Bound. Let M be the most tokens in flight at once (prompts plus the larger of expected and actual
output), w_p <= w_q the token weights, w_min the least account weight. At i's last dispatch i had
the least rank, so i's service was at most the least service plus some active k's reservations;
since then i's service grew by at most its own flight. Both were in flight together, hence
service_i - service_j <= U = max(w_p * L_input, w_q * M) / w_min for any two active accounts, and
over any interval in which both stay active their service differs by at most 2 * U.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar


class Account:
    """Service and reservations of one sharer (a tenant in a class, or a class), divided by its
    weight; the unit is weighted tokens per weight."""

    __slots__ = ("_per_unit", "in_flight", "name", "pending", "service", "since", "weight")

    def __init__(self, name: str, weight: float) -> None:
        self.name = name
        self.weight = weight
        self._per_unit = 1.0 / weight
        self.service = 0.0
        self.pending = 0.0
        self.in_flight = 0
        self.since = 0

    @property
    def rank(self) -> float:
        """Least rank runs next."""
        return self.service + self.pending

    def reserve(self, cost: float) -> None:
        """A request of that expected cost is dispatched."""
        self.pending += cost * self._per_unit
        self.in_flight += 1

    def reweigh(self, weight: float) -> None:
        """The account has another weight from now on. Service given stays what it was counted as;
        what is reserved is counted anew, so that what is settled later cancels it."""
        self.pending *= self.weight / weight
        self.weight = weight
        self._per_unit = 1.0 / weight

    def serve(self, cost: float, reserved: float) -> None:
        """Service of ``cost`` was given, of which ``reserved`` was expected."""
        self.service += cost * self._per_unit
        self.pending -= reserved * self._per_unit

    def settle(self, reserved: float) -> None:
        """A request ended with that much of its reservation not used."""
        self.in_flight -= 1
        # With nothing in flight the sum is zero by definition: no rounding error is kept.
        self.pending = self.pending - reserved * self._per_unit if self.in_flight else 0.0


_A = TypeVar("_A", bound=Account)


class LazyMin(Generic[_A]):
    """Accounts by least key. A key that grew is noticed when its entry surfaces; one that
    shrank must be put again. Amortised O(log n)."""

    __slots__ = ("_entry", "_heap", "_key", "_puts")

    def __init__(self, key: Callable[[_A], float]) -> None:
        self._key = key
        self._heap: list[tuple[float, int, int, _A]] = []
        self._entry: dict[_A, int] = {}
        self._puts = 0

    def __len__(self) -> int:
        return len(self._entry)

    def __contains__(self, account: object) -> bool:
        return account in self._entry

    def __iter__(self) -> Iterator[_A]:
        return iter(self._entry)

    def put(self, account: _A) -> None:
        """Add the account, or replace its entry."""
        self._puts += 1
        self._entry[account] = self._puts
        heapq.heappush(self._heap, (self._key(account), account.since, self._puts, account))
        if len(self._heap) > 2 * len(self._entry) + 64:
            self._heap = [entry for entry in self._heap if self._entry.get(entry[3]) == entry[2]]
            heapq.heapify(self._heap)

    def drop(self, account: _A) -> None:
        self._entry.pop(account, None)

    def first(self) -> _A | None:
        """The account of least key; equal keys: least ``since``."""
        heap, entries = self._heap, self._entry
        while heap:
            key, since, put, account = heap[0]
            if entries.get(account) != put:
                heapq.heappop(heap)
            elif (now := self._key(account)) > key:
                heapq.heapreplace(heap, (now, since, put, account))
            else:
                return account
        return None


def rank_of(account: Account) -> float:
    """:attr:`Account.rank`, without a property's call."""
    return account.service + account.pending


def _service(account: Account) -> float:
    return account.service


class ActiveSet(Generic[_A]):
    """The accounts that have something waiting."""

    __slots__ = ("_by_rank", "_by_service", "_last_left", "_turn")

    def __init__(self) -> None:
        self._by_rank = LazyMin[_A](rank_of)
        self._by_service = LazyMin[_A](_service)
        self._last_left: _A | None = None
        self._turn = 0

    def __len__(self) -> int:
        return len(self._by_rank)

    def __contains__(self, account: object) -> bool:
        return account in self._by_rank

    def __iter__(self) -> Iterator[_A]:
        return iter(self._by_rank)

    def floor(self) -> float:
        """Service that a newcomer is lifted to: the least among the active or, when none is,
        that of the account which left last."""
        least = self._by_service.first() or self._last_left
        return least.service if least is not None else 0.0

    def add(self, account: _A) -> None:
        """``account`` has something waiting again: lifted, so that idling banked no credit."""
        account.service = max(account.service, self.floor())
        self._by_service.put(account)
        self.moved_on(account)

    def passed(self, account: _A) -> None:
        """:meth:`add` and :meth:`leave` in one, while no account is active: something of
        ``account`` came and was served at once. No turn is taken: who comes next gets a later one
        in any case."""
        account.service = max(account.service, self.floor())
        self._last_left = account

    def moved_on(self, account: _A) -> None:
        """``account`` came or was just served: of equals it is the last."""
        self._turn += 1
        account.since = self._turn
        self._by_rank.put(account)

    def touch(self, account: _A) -> None:
        """The rank of ``account`` may have shrunk."""
        if account in self._by_rank:
            self._by_rank.put(account)

    def leave(self, account: _A) -> None:
        """Nothing of ``account`` waits any more."""
        self._by_rank.drop(account)
        self._by_service.drop(account)
        self._last_left = account

    def first(self) -> _A | None:
        """The active account of least rank."""
        return self._by_rank.first()

    def ranked(self) -> list[_A]:
        """All active accounts, least rank first. O(n log n): for a handful of classes."""
        return sorted(self._by_rank, key=lambda account: (account.rank, account.since))
