"""The right to run one request, and what it holds."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import msgspec

from router.admission.queue import AdmissionQueue
from router.ledger import Reservation
from router.lengths import OutputLengths
from router.types import RouteRequest


class Chooser(Protocol):
    """The part of :class:`router.router.Router` that a ticket uses."""

    def choose(self, request: RouteRequest, exclude: Collection[str] = ()) -> Reservation: ...


class Issuer(Protocol):
    """The part of :class:`router.dispatcher.Dispatcher` that a ticket uses."""

    @property
    def router(self) -> Chooser: ...

    @property
    def queue(self) -> AdmissionQueue: ...

    @property
    def lengths(self) -> OutputLengths: ...

    def wake(self) -> None: ...


class Ticket:
    """The right to run one request, on the replica that ``grant`` reserves.

    ``priority`` is for the engine (lower runs sooner); ``output_tokens`` what was generated so far,
    on all replicas together.
    """

    __slots__ = (
        "_issuer",
        "_open",
        "_started",
        "grant",
        "output_tokens",
        "priority",
        "request",
        "waited_s",
    )

    def __init__(
        self,
        issuer: Issuer,
        request: RouteRequest,
        grant: Reservation,
        priority: int,
        waited_s: float,
    ) -> None:
        self.request = request
        self.grant = grant
        self.priority = priority
        self.waited_s = waited_s
        self.output_tokens = 0
        self._issuer = issuer
        self._started = False
        self._open = True

    def progress(
        self, output_tokens: int, cached_tokens: int = 0, prompt_tokens: int | None = None
    ) -> None:
        """``output_tokens`` more came (0: only the prefill is known to be done). The first call,
        and the first after a move, frees the replica's prefill, which may let the next request in.
        ``prompt_tokens``: how long the prompt turned out to be, where the request could only
        estimate it.
        """
        if not self._open:
            return
        self.output_tokens += output_tokens
        self.grant.progress(output_tokens)
        self._issuer.queue.progress(
            self.request.request_id, output_tokens, cached_tokens, prompt_tokens
        )
        if not self._started:
            self._started = True
            self._issuer.wake()

    def prefill_done(self) -> None:
        """The grant's prefill replica has computed the prompt, which may let the next request in.
        Nothing where one replica does everything, or when told again."""
        if self._open:
            self.grant.prefill_done()
            self._issuer.wake()

    def transferred(self, tokens: int, transfer_s: float) -> None:
        """The grant's replica has the KV blocks of ``tokens`` prompt tokens, which took
        ``transfer_s`` from asking for them: what the prefill replica held is free. What was not
        told by then, the first :meth:`progress` implies."""
        if self._open:
            self.grant.transferred(tokens, transfer_s)
            self._issuer.wake()

    def transfer_failed(self) -> None:
        """The grant's replica did not get the blocks and computes the prompt itself; the prefill
        replica is free. (To begin again elsewhere instead: :meth:`move`.)"""
        if self._open:
            self.grant.transfer_failed()
            self._issuer.wake()

    def move(
        self,
        exclude: Collection[str],
        resumed_tokens: int | None = None,
        block_hashes: tuple[int, ...] | None = None,
    ) -> Reservation:
        """Another replica for the same request, at the same priority: a retry, or the rest of a
        stream whose replica is lost.

        The new replica has the prompt and the ``resumed_tokens`` generated so far (None: all that
        :meth:`progress` told) to prefill, less what it has cached, and what is left to generate.
        Tokens that are not resumed are generated again, and are told again by :meth:`progress`.
        ``block_hashes``: of prompt and resumed tokens (None: the prompt's own).

        Raises:
            NoReplicaError: none is left; the old grant stays until the ticket is closed.
        """
        told = self.output_tokens if resumed_tokens is None else resumed_tokens
        rest = self.request if not told and block_hashes is None else self._rest(told, block_hashes)
        old, self.grant = self.grant, self._issuer.router.choose(rest, exclude)
        old.release()
        self.output_tokens = told
        self._started = False
        self._issuer.wake()
        return self.grant

    def _rest(self, resumed_tokens: int, block_hashes: tuple[int, ...] | None) -> RouteRequest:
        request = self.request
        return msgspec.structs.replace(
            request,
            prompt_tokens=request.prompt_tokens + resumed_tokens,
            max_output_tokens=max(1, request.max_output_tokens - resumed_tokens),
            expected_output_tokens=max(1, request.expected_output_tokens - resumed_tokens),
            block_hashes=request.block_hashes if block_hashes is None else block_hashes,
        )

    def close(self, complete: bool = False) -> None:
        """Free everything; any number of calls. ``complete``: the answer ended by itself, and says
        how long such answers are (one that was broken off says only how long at least)."""
        if not self._open:
            return
        request = self.request
        self._issuer.lengths.observe(
            request.tenant,
            request.priority_class,
            self.output_tokens,
            request.max_output_tokens,
            complete,
        )
        self._issuer.queue.finish(request.request_id)
        self._free()

    def give_back(self) -> None:
        """As :meth:`close` for a request that no replica has seen: its tenant is not charged."""
        if self._open:
            self._issuer.queue.give_back(self.request.request_id)
            self._free()

    def _free(self) -> None:
        self._open = False
        self.grant.release()
        self._issuer.wake()
