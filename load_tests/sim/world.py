"""The simulated world: engines, a system in front of them, clients with a trace."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from load_tests.sim.blocks import KvOp
from load_tests.sim.engine import Engine, EngineConfig
from load_tests.sim.events import EventQueue
from load_tests.sim.links import LINK_400G, Link, Links
from load_tests.sim.request import SimRequest
from load_tests.sim.system import PolledStats, System
from load_tests.sim.timing import StepTiming
from load_tests.traces.schema import Trace, TraceError, TraceRequest
from router.types import Role


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """``replicas`` equal engines, joined by ``link``. ``roles``: of each (empty: all mixed)."""

    replicas: int
    engine: EngineConfig
    timing: StepTiming
    roles: tuple[Role, ...] = ()
    link: Link = LINK_400G


class World:
    """Runs one system on one trace. Everything random comes from ``seed``."""

    def __init__(self, system: System, fleet: FleetConfig, seed: int) -> None:
        self.system = system
        self.config = fleet
        self.rng = random.Random(seed)
        self.requests: list[SimRequest] = []
        self.answered = 0  # finished or shed
        self._queue = EventQueue()
        log = system.knowledge.kv_event_delay_s is not None
        self._engines = [
            Engine(index, fleet.engine, fleet.timing, self._queue, self, log)
            for index in range(fleet.replicas)
        ]
        self._links = Links(fleet.link, fleet.replicas)
        self._prompts: dict[
            int, SimRequest
        ] = {}  # of pairs; -> the part that the prefill engine has
        self._on_answer: Callable[[SimRequest], None] | None = None
        self._open = True
        system.start(self)

    # The fleet, as the system sees it.

    @property
    def now_s(self) -> float:
        """Simulated time."""
        return self._queue.now_s

    @property
    def engines(self) -> Sequence[Engine]:
        """The engines themselves."""
        return self._engines

    @property
    def roles(self) -> Sequence[Role]:
        """Of the engines."""
        return self.config.roles

    def dispatch(self, request: SimRequest, replica: int, priority: int = 0) -> None:
        """Hand a request to an engine."""
        self._begin(request, priority)
        self._engines[replica].submit(request)

    def dispatch_pair(
        self, request: SimRequest, prefill: int, replica: int, priority: int = 0
    ) -> None:
        """Hand the prompt to one engine; the other gets the request when it is computed."""
        self._begin(request, priority)
        request.fetches = request.paired = True
        request.replica = replica
        part = SimRequest(request.index, request.trace, request.arrival_s)
        part.hands_over, part.priority = True, priority
        self._prompts[request.index] = part
        part.note = request
        self._engines[prefill].submit(part)

    def _begin(self, request: SimRequest, priority: int) -> None:
        if request.dispatched_s is not None or request.shed_reason is not None:
            raise RuntimeError(f"{self.system.name} answered request {request.index} twice")
        request.dispatched_s = self._queue.now_s
        request.priority = priority

    def shed(self, request: SimRequest, reason: str) -> None:
        """Refuse a request."""
        if request.dispatched_s is not None or request.shed_reason is not None:
            raise RuntimeError(f"{self.system.name} answered request {request.index} twice")
        request.shed_reason = reason
        self._answer(request)

    def after(self, delay_s: float, call: Callable[[Any], None], argument: Any = None) -> None:
        """Call back later."""
        self._queue.after(delay_s, call, argument)

    # What engines report.

    def first_token(self, request: SimRequest) -> None:
        """Relay."""
        self.system.first_token(request)

    def prompt_ready(self, part: SimRequest) -> None:
        """The pair's other engine goes on."""
        request = part.note
        assert isinstance(request, SimRequest)
        request.cached_tokens = part.cached_tokens
        request.work_tokens += part.work_tokens
        self.system.prompt_ready(request)
        self._engines[request.replica].submit(request)

    def fetch(self, request: SimRequest, tokens: int) -> None:
        """The blocks move over the link between the two engines."""
        part = self._prompts[request.index]
        delay_s = self._links.begin(self.now_s, part.replica, request.replica, tokens)
        self._queue.after(delay_s, self._fetched, (request, tokens, delay_s))

    def _fetched(self, transfer: tuple[SimRequest, int, float]) -> None:
        request, tokens, transfer_s = transfer
        part = self._prompts.pop(request.index)
        self._engines[part.replica].release_prompt(part)
        self.system.transferred(request, tokens, transfer_s)
        self._engines[request.replica].fetched(request)

    def finished(self, request: SimRequest) -> None:
        """Relay, and let a waiting client go on."""
        self.system.finished(request)
        self._answer(request)

    def stepped(self, replica: int) -> None:
        """Relay."""
        self.system.stepped(replica)

    def kv_changed(self, replica: int, ops: list[KvOp]) -> None:
        """Block events reach the system after its delay."""
        delay = self.system.knowledge.kv_event_delay_s
        if delay is not None:
            self._queue.after(delay, self._deliver, (replica, ops))

    def _deliver(self, event: tuple[int, list[KvOp]]) -> None:
        self.system.kv_events(*event)

    def _answer(self, request: SimRequest) -> None:
        self.answered += 1
        if self._on_answer is not None:
            self._on_answer(request)

    def _poll(self, _: Any) -> None:
        for engine in self._engines:
            stats = PolledStats(
                engine.index, engine.running, engine.waiting, engine.pool.used, self.now_s
            )
            self.system.stats(stats)
        interval = self.system.knowledge.stats_interval_s
        if interval is not None and (self._open or self.answered < len(self.requests)):
            self._queue.after(interval, self._poll)

    # Clients.

    def run_open(self, trace: Trace) -> None:
        """Send every request at its time, whatever happens, and wait for all answers."""
        if trace.closed_loop:
            raise TraceError(f"{trace.name} is closed-loop; give it users")
        start = trace.requests[0].arrival_s
        self._arrivals = iter(trace.requests)
        self._poll_first()
        self._next_arrival(start)
        self._queue.run()

    def _next_arrival(self, start_s: float) -> None:
        trace_request = next(self._arrivals, None)
        if trace_request is None:
            self._open = False
            return
        self._queue.at(
            trace_request.arrival_s - start_s, self._arrive_open, (trace_request, start_s)
        )

    def _arrive_open(self, pair: Any) -> None:
        trace_request, start_s = pair
        request = SimRequest(len(self.requests), trace_request, self.now_s)
        self._next_arrival(start_s)
        self.send(request)

    def run_closed(self, trace: Trace, users: int, horizon_s: float, ramp_s: float) -> None:
        """``users`` clients work through the sessions, one after another each, until
        ``horizon_s``; they begin spread evenly over ``ramp_s``."""
        clients = ClosedLoop(self, trace, users, ramp_s)
        self._on_answer = clients.answered
        self._poll_first()
        clients.start()
        self._queue.run(horizon_s)
        self._open = False

    def send(self, request: SimRequest) -> None:
        """A client's request arrives."""
        self.requests.append(request)
        self.system.arrive(request)

    def _poll_first(self) -> None:
        if self.system.knowledge.stats_interval_s is not None:
            self._queue.after(0.0, self._poll)


class ClosedLoop:
    """Clients that send a session's next request when its predecessors are answered."""

    def __init__(self, world: World, trace: Trace, users: int, ramp_s: float) -> None:
        if not trace.closed_loop:
            raise TraceError(f"{trace.name} has no sessions")
        self._world = world
        self._trace = trace
        self._users = users
        self._ramp_s = ramp_s
        self._order = list(range(len(trace.sessions)))
        world.rng.shuffle(self._order)
        self._next_session = 0
        self._children: dict[int, list[int]] = {}
        for session in trace.sessions:
            for index in session:
                for parent, _ in trace.requests[index].after:
                    self._children.setdefault(parent, []).append(index)
        self._runs: dict[int, _SessionRun] = {}

    def start(self) -> None:
        """Begin every user's first session."""
        for user in range(self._users):
            self._world.after(self._ramp_s * user / self._users, self._begin)

    def _begin(self, _: Any) -> None:
        lap, place = divmod(self._next_session, len(self._order))
        self._next_session += 1
        run = _SessionRun(self._trace.sessions[self._order[place]], lap)
        for index in run.session:
            if not self._trace.requests[index].after:
                self._send((run, index))

    def _send(self, pair: tuple[_SessionRun, int]) -> None:
        run, index = pair
        world = self._world
        request = SimRequest(len(world.requests), run.request(self._trace, index), world.now_s)
        self._runs[request.index] = run
        run.index_of[request.index] = index
        world.send(request)

    def answered(self, request: SimRequest) -> None:
        """Schedule what waited for this answer; a session's end begins the user's next."""
        run = self._runs.pop(request.index)
        world = self._world
        done = run.index_of.pop(request.index)
        run.ready_s[done] = world.now_s
        for child in self._children.get(done, ()):
            after = self._trace.requests[child].after
            if all(parent in run.ready_s for parent, _ in after):
                when = max(run.ready_s[parent] + think_s for parent, think_s in after)
                world.after(max(0.0, when - world.now_s), self._send, (run, child))
        if len(run.ready_s) == len(run.session):
            world.after(0.0, self._begin)


class _SessionRun:
    """One user's pass through one session. From the second lap over the trace on, a session is
    another user's: the same shape, other content."""

    __slots__ = ("_salt", "index_of", "ready_s", "session")

    def __init__(self, session: tuple[int, ...], lap: int) -> None:
        self.session = session
        self.ready_s: dict[int, float] = {}  # trace index -> answered at
        self.index_of: dict[int, int] = {}  # request index -> trace index
        self._salt = random.Random(lap).getrandbits(60) if lap else 0

    def request(self, trace: Trace, index: int) -> TraceRequest:
        """The trace's request, with this lap's content."""
        request = trace.requests[index]
        if not self._salt:
            return request
        salt = self._salt
        return replace(request, block_hashes=tuple(h ^ salt for h in request.block_hashes))
