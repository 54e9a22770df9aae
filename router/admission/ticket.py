"""The right to run one request, and what it holds."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

from router.admission.queue import AdmissionQueue
from router.types import RouteRequest


class Grant(Protocol):
    """A replica reserved for one request (:class:`router.ledger.Reservation` is one)."""

    def progress(self, generated_tokens: int) -> None: ...

    def release(self) -> bool: ...


G = TypeVar("G", bound=Grant)
Choose = Callable[[RouteRequest, Collection[str]], G]
"""``(request, replicas to leave out) -> grant``: :meth:`router.router.Router.choose`."""


class Ticket(Generic[G]):
    """The right to run one request. Freed by leaving the ``async with`` that gave it."""

    __slots__ = (
        "_choose",
        "_open",
        "_queue",
        "_started",
        "_wake",
        "grant",
        "priority",
        "request",
        "waited_s",
    )

    def __init__(
        self,
        request: RouteRequest,
        grant: G,
        choose: Choose[G],
        priority: int,
        waited_s: float = 0.0,
        queue: AdmissionQueue | None = None,
        wake: Callable[[], None] | None = None,
    ) -> None:
        self.request = request
        self.grant = grant
        self.priority = priority
        self.waited_s = waited_s
        self._choose = choose
        self._queue = queue
        self._wake = wake
        self._started = False
        self._open = True

    def progress(self, output_tokens: int, cached_tokens: int = 0) -> None:
        """More output came (0: only the prefill is known to be done). The first call frees the
        replica's prefill allowance, which may let the next request in."""
        if not self._open:
            return
        self.grant.progress(output_tokens)
        if self._queue is not None:
            self._queue.progress(self.request.request_id, output_tokens, cached_tokens)
        if not self._started:
            self._started = True
            self._wakeup()

    def rebind(self, exclude: Collection[str]) -> G:
        """Another replica for the same request, at the same priority, when its own failed.

        Raises:
            NoReplicaError: none is left; the old grant stays until the ticket is freed.
        """
        old, self.grant = self.grant, self._choose(self.request, exclude)
        old.release()
        self._wakeup()
        return self.grant

    def move(self, exclude: Collection[str], resumed_tokens: int = 0) -> G:
        return self.rebind(exclude)

    def close(self) -> None:
        """Free everything. Any number of calls."""
        if self._open and self._queue is not None:
            self._queue.finish(self.request.request_id)
        self._free()

    def give_back(self) -> None:
        """As :meth:`close` for a request that no replica has seen: its tenant is not charged."""
        if self._open and self._queue is not None:
            self._queue.give_back(self.request.request_id)
        self._free()

    def _free(self) -> None:
        if self._open:
            self._open = False
            self.grant.release()
            self._wakeup()

    def _wakeup(self) -> None:
        if self._wake is not None:
            self._wake()
