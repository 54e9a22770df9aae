"""The router: membership, index, ledger and policy. Choosing and reserving are one step."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial

from router.adapters import AdapterBook
from router.avoided import Avoided
from router.disaggregation.placing import PlacedReservation, Placing
from router.explaining import Comparing, explain
from router.held import Held
from router.latency import LatencyBook
from router.ledger import Ledger, R, Reservation, prefill_work
from router.loads import Loads
from router.policy import Policy
from router.prefix_index import PrefixIndex
from router.snapshot import Columns, Fleet, Snapshot
from router.tiers import Tiered, load_work
from router.types import (
    Decision,
    PairDecision,
    ReplicaInfo,
    ReplicaLoad,
    ReplicaStats,
    Role,
    RouteRequest,
    prefill_replica_of,
)
from router.view import Preferred, View
from weir.errors import NoReplicaError

#: Subsets of the members whose unchanging columns are kept.
_FLEETS_KEPT = 1024
Fleets = dict[tuple[str, ...], Fleet]
_Asked = tuple[RouteRequest, View, Collection[str]]
MembersChanged = Callable[[tuple[ReplicaInfo, ...], tuple[ReplicaInfo, ...]], None]
#: Blocks indexed for a replica that does not say how many it has.
DEFAULT_KV_BLOCKS = 131_072


class Router:
    """Decides for one model. Not thread-safe: one event loop (or the simulator) owns it.

    ``clock`` gives monotonic seconds; ``rng`` is the only source of randomness. ``index`` and
    ``latency`` are the router's own unless given; KV events are fed to ``index``. ``placing``
    decides where replicas have roles (None: every replica is taken as mixed).
    """

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float],
        rng: random.Random,
        index: PrefixIndex | None = None,
        latency: LatencyBook | None = None,
        placing: Placing | None = None,
    ) -> None:
        self._policy = policy
        #: Whether :meth:`preferred` says more than a draw or a turn would.
        self.compares = isinstance(policy, Comparing)
        self.placing = placing
        #: Whether reservations can explain their decisions: what these saw is then kept with them.
        self.explains = False
        #: Whether :meth:`place` decides: replicas have roles, or mixed ones may be pairs.
        self.places = False
        self._placed: tuple[_Asked, Decision | None] | None = None
        self._clock = clock
        self._rng = rng
        self.index = index if index is not None else PrefixIndex()
        self._tier_blocks = self.index.tiers.held
        self.latency = latency if latency is not None else LatencyBook()
        self.adapters = AdapterBook()
        self._ledger = Ledger(clock, self.latency, self.adapters)
        self._loads = Loads(self._ledger, self.latency, clock)
        self._members: dict[str, ReplicaInfo] = {}
        self._fleets: Fleets = {}  # of the subsets asked for lately
        self._avoided = Avoided(clock)
        self._roles: dict[str, Role] = {}  # of members that do something else than their pool
        self._roles_changed_s: dict[str, float] = {}
        #: Called with the members before and after, whenever they have changed.
        self.listeners: list[MembersChanged] = []

    @property
    def members(self) -> tuple[ReplicaInfo, ...]:
        return tuple(self._members.values())

    def set_replicas(self, replicas: Iterable[ReplicaInfo]) -> None:
        """Replace the replica set; what was outstanding on, and held by, the departed is
        forgotten. Listeners are told if anything about the members is new."""
        old = self.members
        self._replace(replicas)
        if self.members != old:
            for listener in tuple(self.listeners):
                listener(old, self.members)

    def _replace(self, replicas: Iterable[ReplicaInfo]) -> None:
        new = {info.replica_id: self._with_role(info) for info in replicas}
        for gone in self._members.keys() - new.keys():
            self.index.remove_replica(gone)
            self.latency.forget(gone)
            self.adapters.forget(gone)
            if self.placing is not None:
                self.placing.forget(gone)
            self._avoided.forget(gone)
            self._roles.pop(gone, None)
            self._roles_changed_s.pop(gone, None)
        for rid, info in new.items():
            if rid not in self._members:
                self._index_replica(info)
        self._members = new
        self._loads.align(tuple(new.values()))
        self._fleets.clear()
        if self.placing is not None:
            self.placing.members_changed()
            self.places = self.placing.concerns(self._loads.fleet)

    def change_role(self, replica_id: str, role: Role | None) -> bool:
        """A member says that it has another role than its pool for a while, or (None) its pool's
        again. Whether that is new; False for strangers. What it has in flight stays as it is."""
        info = self._members.get(replica_id)
        if info is None or (role or info.pool_role) == info.role:
            return False
        if role is None or role == info.pool_role:
            self._roles.pop(replica_id, None)
        else:
            self._roles[replica_id] = role
        self._roles_changed_s[replica_id] = self._clock()
        self.set_replicas(self.members)
        return True

    def role_changed_s(self, replica_id: str) -> float:
        """When a member was last heard to change its role (minus infinity: never)."""
        return self._roles_changed_s.get(replica_id, -math.inf)

    def _with_role(self, info: ReplicaInfo) -> ReplicaInfo:
        role, own = self._roles.get(info.replica_id), info.pool_role
        if role is None or role == own:
            return info if info.own_role is None else replace(info, role=own, own_role=None)
        return replace(info, role=role, own_role=own)

    def update_stats(self, replica_id: str, stats: ReplicaStats) -> None:
        """Keep a replica's own view of itself; ignored for strangers."""
        self._loads.told(replica_id, stats)

    def stepped(self, replica_id: str) -> None:
        """Tokens came from a replica: its engine has just ended a step."""
        self._loads.stepped(replica_id)

    def avoid(self, replica_id: str, until_s: float) -> None:
        """Leave a member out of all choices until then, unless nobody else is left (a connection
        failed, it makes no step, it is draining: infinity). A time that has passed takes that
        back. Ignored for strangers."""
        if replica_id not in self._members or not self._avoided.until(replica_id, until_s):
            return
        for listener in tuple(self.listeners):
            listener(self.members, self.members)

    def avoided(self) -> frozenset[str]:
        """Members that are to be left out now."""
        return self._avoided.now()

    def next_return_s(self) -> float | None:
        """When the next avoided member may be chosen again; None if none will be by itself."""
        return self._avoided.next_return_s()

    def own_load(self, replica_id: str) -> ReplicaLoad:
        """What this router dispatched to a replica and has not seen finished."""
        return self._ledger.load(replica_id)

    def view(
        self, exclude: Collection[str] = (), *, keeping: bool = False, thrashing: bool = False
    ) -> View:
        """All members now, except ``exclude`` and, unless nobody else is left, those to be avoided.
        See :class:`View`."""
        now_s, index = self._clock(), self.index
        exclude = self._left_out(exclude)
        columns = self._loads.columns(now_s)
        return View(
            now_s,
            _without(columns, exclude, self._fleets) if exclude else columns,
            lambda hashes: index.lookup(hashes, now_s),
            lambda replica_id: index.eviction_age_s(replica_id, now_s),
            keeping=keeping,
            thrashing=thrashing,
        )

    def snapshot(self) -> Snapshot:
        """All members now, for pages and tests; decisions read a :meth:`view`."""
        view = self.view()
        return Snapshot(view.now_s, columns=view.columns)

    def choose(
        self, request: RouteRequest, exclude: Collection[str] = (), view: View | None = None
    ) -> Reservation:
        """Pick a replica and count the request on it, in one synchronous step. ``view``: one taken
        since the last dispatch, of which ``exclude`` is left out (None: a new one).

        Raises:
            NoReplicaError: no member is left to choose from.
        """
        if view is None:
            view, exclude = self.view(exclude), ()
        if self.places:
            return self._choose_placed(request, view, exclude)
        found = view.preferred
        if exclude or found is None or found.request is not request:
            found = self._preferred(request, view, exclude)
        _, snapshot, decision = found
        made: Reservation = self._reserve(
            request, decision, snapshot.columns, snapshot.held, tiered=snapshot.tiered
        )
        if self.explains:
            made.explain = partial(explain, self._policy, request, snapshot)
        return made

    def preferred(self, request: RouteRequest, view: View) -> int:
        """The slot of the candidate that the policy chooses of the whole view; :meth:`choose` takes
        it if nobody is to be left out. While :attr:`compares`: of less than the whole view the
        policy would then choose the same.

        Raises:
            NoReplicaError: the view is empty.
        """
        found = view.preferred = self._preferred(request, view, ())
        return found.snapshot.columns.fleet.slots[found.decision.replica_id]

    def _preferred(self, request: RouteRequest, view: View, exclude: Collection[str]) -> Preferred:
        columns, held = view.for_urgency(request.urgency), view.found(request)
        if exclude:
            columns = _without(columns, exclude, self._fleets)
        if not columns.fleet.ids:
            raise NoReplicaError(f"model {request.model!r} has no replica that can take a request")
        snapshot = self._asked(request, view.now_s, held, columns)
        return Preferred(request, snapshot, self._policy.choose(request, snapshot, self._rng))

    def place(
        self, request: RouteRequest, view: View, saturated: Collection[str]
    ) -> Decision | None:
        """Where a request would go if ``saturated`` replicas are to get no more prompts; None: what
        the rule wants has no room. Only while :attr:`places`."""
        assert self.placing is not None
        asked = (request, view, saturated)
        if self._placed is not None and all(
            a is b for a, b in zip(self._placed[0], asked, strict=True)
        ):
            return self._placed[1]  # Admission has asked the same a moment ago.
        columns, held = view.for_urgency(request.urgency), view.found(request)
        snapshot = self._asked(request, view.now_s, held, columns)
        decision = self.placing.place(request, snapshot, saturated, self._policy, self._rng)
        self._placed = (asked, decision)
        return decision

    def _choose_placed(
        self, request: RouteRequest, view: View, saturated: Collection[str]
    ) -> PlacedReservation:
        """As :meth:`choose`, where replicas have roles. Without room anywhere a request still gets
        a replica: queueing is then admission's affair."""
        columns = view.for_urgency(request.urgency)
        if not columns.fleet.ids:
            raise NoReplicaError(f"model {request.model!r} has no replica that can take a request")
        decision = self.place(request, view, saturated) or self.place(request, view, ())
        self._placed = None
        held = view.found(request)
        if decision is None:
            snapshot = self._asked(request, view.now_s, held, columns)
            decision = self._policy.choose(request, snapshot, self._rng)
        prefill_id = prefill_replica_of(decision) or decision.replica_id
        info = self._members[prefill_id]
        cached = _cached_tokens(request, info, held)
        work = prefill_work(request.prompt_tokens - cached, cached, info.attention_tokens)
        prefill_s = work * max(0.0, self.latency.fit(prefill_id).ttft[1] / 1000.0)
        prefill: Reservation | None = None
        if isinstance(decision, PairDecision):
            one = Decision(prefill_id, decision.reason, decision.prefill_overlap_blocks)
            only_prompt = request.completed(1, request.urgency)
            prefill = self._reserve(only_prompt, one, columns, held)
        answer = self._reserve(request, decision, columns, held, PlacedReservation)
        assert self.placing is not None
        answering = self._members[decision.replica_id]
        answer.begin(
            self.placing,
            self._clock,
            prefill,
            prefill_s,
            answering.attention_tokens,
            _cached_tokens(request, answering, held),
            lambda: self._arrived(request, decision.replica_id),
        )
        if self.explains:
            snapshot = self._asked(request, view.now_s, held, columns)
            answer.explain = partial(explain, self._policy, request, snapshot)
        return answer

    def _reserve(
        self,
        request: RouteRequest,
        decision: Decision,
        columns: Columns,
        held: Held,
        kind: type[R] = Reservation,  # type: ignore[assignment]
        tiered: Mapping[str, Tiered] | None = None,
    ) -> R:
        replica_id = decision.replica_id
        blocks = held.blocks(replica_id)
        if blocks != decision.overlap_blocks:
            decision = Decision(replica_id, decision.reason, blocks)
        pair = kind is not Reservation and isinstance(decision, PairDecision)
        if request.block_hashes and not pair:
            self.index.dispatched(replica_id, request.block_hashes, self._clock())
        info = self._members[replica_id]
        # Engines compute at least the last prompt token, also when all blocks are held.
        cached = max(0, min(blocks * info.block_size, request.prompt_tokens - 1))
        if pair:
            cached = request.prompt_tokens  # Another replica computes it.
        elif tiered and replica_id in tiered:
            # What it loads it does not compute; loading counts as that much prefill.
            beyond = tiered[replica_id]
            spared = max(0, beyond.blocks * info.block_size - math.ceil(beyond.load_work))
            cached = min(cached + spared, request.prompt_tokens - 1)
        ahead = columns.prefill_work[columns.fleet.slots[replica_id]]
        return self._ledger.reserve(request, decision, cached, info.attention_tokens, ahead, kind)

    def _asked(self, request: RouteRequest, now_s: float, held: Held, columns: Columns) -> Snapshot:
        """What a policy sees, for one request."""
        if request.adapter is None and not self._tier_blocks:
            return Snapshot(now_s, overlap_blocks=held, columns=columns)
        token_s = self.latency.fit().ttft[1] / 1000.0
        work = None
        if request.adapter is not None:
            work = self.adapters.work(request.adapter, columns.fleet.ids, token_s)
        tiered = self._tiered(request, held, columns, token_s) if self._tier_blocks else None
        return Snapshot(
            now_s, overlap_blocks=held, columns=columns, adapter_work=work, tiered=tiered
        )

    def _tiered(
        self, request: RouteRequest, held: Held, columns: Columns, token_s: float
    ) -> Mapping[str, Tiered]:
        """What replicas would load of the prompt, and what that costs."""
        slots = columns.fleet.slots
        return {
            replica_id: Tiered(
                beyond.memory + beyond.disk,
                load_work(beyond, columns.stats[slots[replica_id]].tiers, token_s),
            )
            for replica_id, beyond in self.index.tiers.beyond(
                request.block_hashes, held.every
            ).items()
            if replica_id in slots
        }

    def _arrived(self, request: RouteRequest, replica_id: str) -> None:
        """The prompt's blocks came from another replica."""
        if request.block_hashes and replica_id in self._members:
            self.index.dispatched(replica_id, request.block_hashes, self._clock())

    def _left_out(self, exclude: Collection[str]) -> Collection[str]:
        """``exclude`` and who is to be avoided, if that leaves anybody."""
        if not self._avoided or not (avoided := self._avoided.now()):
            return exclude
        without = avoided.union(exclude)
        return without if self._members.keys() - without else exclude

    def _index_replica(self, info: ReplicaInfo) -> None:
        blocks = info.kv_blocks_total or DEFAULT_KV_BLOCKS
        # Where events tell what leaves, the bound is only a guard; predictions need room too.
        bound = blocks + blocks // 4 if info.kv_events else blocks
        self.index.add_replica(info.replica_id, bound, events=info.kv_events)


def _cached_tokens(request: RouteRequest, info: ReplicaInfo, held: Held) -> int:
    blocks = held.blocks(info.replica_id)
    return max(0, min(blocks * info.block_size, request.prompt_tokens - 1))


def _without(columns: Columns, exclude: Collection[str], fleets: Fleets) -> Columns:
    kept = tuple(i for i, rid in enumerate(columns.fleet.ids) if rid not in exclude)
    if len(kept) == len(columns.fleet.ids):
        return columns
    # The few subsets that occur recur: a fleet's own columns cost more than all the others.
    key = tuple(columns.fleet.ids[i] for i in kept)
    fleet = fleets.get(key)
    if fleet is None:
        if len(fleets) >= _FLEETS_KEPT:
            fleets.clear()
        fleet = fleets[key] = Fleet([columns.fleet.infos[i] for i in kept])
    return columns.only(kept, fleet)
