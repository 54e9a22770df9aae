"""Placing: which replica or pair a request gets, and what is learned from how it went."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from router.disaggregation.pace import PaceBook, ReplicaPace, Slo
from router.disaggregation.rule import Rule
from router.disaggregation.transfer import TransferBook
from router.disaggregation.ways import Ways
from router.ledger import Reservation, prefill_work
from router.policy import Policy
from router.snapshot import Fleet, Snapshot
from router.types import Decision, RouteRequest

_NO_SLOS: Mapping[str, Slo] = MappingProxyType({})
#: Subsets of the members whose unchanging columns are kept.
_FLEETS_KEPT = 1024


def _nobody() -> int:
    return 0


class Placing:
    """One per model, owned by its router. ``slos``: by class; one that is not there has
    :class:`Slo`'s defaults."""

    def __init__(self, rule: Rule, slos: Mapping[str, Slo] = _NO_SLOS) -> None:
        self._rule = rule
        self._slos = slos
        self.pace = PaceBook()
        self.transfers = TransferBook()
        #: How many requests wait in the gateway's queue; set by whoever owns one.
        self.waiting: Callable[[], int] = _nobody
        self._fleets: dict[tuple[str, ...], Fleet] = {}

    def concerns(self, fleet: Fleet) -> bool:
        """Whether there is anything to decide: some replica has a role, or mixed ones may pair."""
        return fleet.has_roles or (self._rule.pairs_of_mixed and len(fleet.ids) > 1)

    def slo(self, request: RouteRequest) -> Slo:
        """The targets of its class."""
        return self._slos.get(request.priority_class, Slo())

    def place(
        self,
        request: RouteRequest,
        snapshot: Snapshot,
        saturated: Collection[str],
        policy: Policy,
        rng: random.Random,
    ) -> Decision | None:
        """One replica or a pair; None: what the rule wants has no room. ``saturated``: replicas
        that are to get no more prompts; ``policy`` chooses among replicas for whole requests."""
        if len(self._fleets) >= _FLEETS_KEPT:
            self._fleets.clear()
        ways = Ways(
            request,
            snapshot,
            saturated,
            policy=policy,
            rng=rng,
            slo=self.slo(request),
            pace=self.pace,
            transfers=self.transfers,
            fleets=self._fleets,
            waiting=self.waiting(),
        )
        way = self._rule.choose(ways)
        if way is None:
            return None
        return ways.decision(way, "whole" if way.prefill is None else "pair")

    def members_changed(self) -> None:
        """Columns kept for subsets of the members may be wrong."""
        self._fleets.clear()

    def forget(self, replica_id: str) -> None:
        """The replica is gone."""
        self.pace.forget(replica_id)


class PlacedReservation(Reservation):
    """A reservation in a fleet with roles: whole, or the answering side of a pair, which then owns
    the reservation on the other side (``prefill``).

    The prefill replica has the uncached prompt as work until :meth:`prefill_done`, and the prompt's
    KV until :meth:`transferred`, :meth:`transfer_failed` or the first :meth:`progress`; the
    answering one has KV and decode work from the beginning. :meth:`release` frees both.
    """

    __slots__ = (
        "_answering",
        "_attention_tokens",
        "_cached_tokens",
        "_clock",
        "_computing",
        "_on_arrival",
        "_placing",
        "_prefill_s",
        "_prompt_done",
        "_prompts_s",
        "_slo",
        "prefill",
    )

    def begin(
        self,
        placing: Placing,
        clock: Callable[[], float],
        prefill: Reservation | None,
        prefill_s: float,
        attention_tokens: float,
        cached_tokens: int,
        on_arrival: Callable[[], None],
    ) -> None:
        """Once, by the router, right after the reservation was made. ``prefill_s``: what computing
        the prompt is thought to take; ``attention_tokens``, and the prompt's ``cached_tokens``: of
        the answering replica; ``on_arrival``: called when it has the prompt's blocks of a pair."""
        self._attention_tokens = attention_tokens
        self._cached_tokens = cached_tokens
        self._on_arrival = on_arrival
        self.prefill = prefill
        self._placing = placing
        self._clock = clock
        self._slo = placing.slo(self.request)
        self._answering: ReplicaPace = placing.pace.of(self.replica_id)
        computing = prefill.replica_id if prefill is not None else self.replica_id
        self._computing: ReplicaPace = placing.pace.of(computing)
        self._prefill_s = prefill_s
        self._prompt_done = False
        self._prompts_s = 0.0
        self._answering.join(self._slo, self.request.expected_output_tokens)
        self._computing.dispatched(clock(), prefill_s)

    def prefill_done(self) -> None:
        if self.released or self._prompt_done:
            return
        self._prompt_done = True
        self._computing.prompt_s += self._prefill_s
        if self.prefill is not None:
            self.prefill.progress(1)

    def transferred(self, tokens: int, transfer_s: float) -> None:
        if self.released or self.prefill is None or self.prefill.released:
            return
        self.prefill_done()
        self.prefill.release()
        self._on_arrival()
        self._placing.transfers.observe(tokens, transfer_s)

    def transfer_failed(self) -> None:
        if self.released or self.prefill is None or self.prefill.released:
            return
        self._prompt_done = True
        self.prefill.release()
        if self._first_s < 0.0:
            self._compute_here()

    def _compute_here(self) -> None:
        """The prompt is this replica's work now."""
        cached = self._cached_tokens
        tokens = self.request.prompt_tokens - cached
        work = round(prefill_work(tokens, cached, self._attention_tokens))
        self._prefill_left += tokens
        self._work_left += work
        self._ledger.change(self._account, 0, tokens, 0, 0, work, self.request.urgency)

    def progress(self, generated_tokens: int) -> None:
        if self.released:
            return
        first = self._first_s < 0.0 and generated_tokens > 0
        self.prefill_done()
        if self.prefill is not None and self.prefill.release():
            self._on_arrival()
        super().progress(generated_tokens)
        if first:
            self._prompts_s = self._answering.prompt_s

    def release(self) -> bool:
        if self.released:
            return False
        self._learn()
        super().release()
        self._answering.leave(self._slo, self.request.expected_output_tokens)
        if self.prefill is not None:
            self.prefill.release()
        return True

    def _learn(self) -> None:
        """How long a step without prompts takes here, from an answer of some length."""
        if self._after_first < 2:
            return
        expected = self.request.expected_output_tokens
        self._placing.pace.spread.observe(expected, self._after_first)
        took_s = self._clock() - self._first_s
        others_s = self._answering.prompt_s - self._prompts_s
        # What is left must be a time: prompts are thought to take longer than they do, sometimes.
        step_s = max(0.1 * took_s, took_s - others_s) / self._after_first
        self._placing.pace.answered(self.replica_id, self.outlook, step_s, self._after_first)
