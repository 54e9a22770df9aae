"""What a routing system sees of a simulated fleet, and what it can do."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from load_tests.sim.blocks import KvOp
from load_tests.sim.engine import Engine
from load_tests.sim.request import SimRequest
from router.types import Role


@dataclass(frozen=True, slots=True)
class PolledStats:
    """What an engine's metrics endpoint says, as it was at ``at_s``."""

    replica: int
    running: int
    waiting: int
    kv_blocks_used: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a system learns about the engines, and how late.

    ``stats_interval_s``: metrics are polled that often (None: never). ``kv_event_delay_s``: an
    engine's block events arrive that long after the step (None: not subscribed).
    """

    stats_interval_s: float | None = None
    kv_event_delay_s: float | None = None


class Fleet(Protocol):
    """The world as given to a system. ``engines`` is for the oracle alone."""

    rng: random.Random

    @property
    def now_s(self) -> float:
        """Simulated time."""
        ...

    @property
    def engines(self) -> Sequence[Engine]:
        """Perfect knowledge: only a system that says so may look."""
        ...

    @property
    def roles(self) -> Sequence[Role]:
        """Of the engines; empty: all mixed."""
        ...

    def dispatch(self, request: SimRequest, replica: int, priority: int = 0) -> None:
        """Send a request to an engine now."""
        ...

    def dispatch_pair(
        self, request: SimRequest, prefill: int, replica: int, priority: int = 0
    ) -> None:
        """Have the prompt computed by engine ``prefill`` and the answer by engine ``replica``."""
        ...

    def shed(self, request: SimRequest, reason: str) -> None:
        """Refuse a request."""
        ...

    def after(self, delay_s: float, call: Callable[[Any], None], argument: Any = None) -> None:
        """Call back later."""
        ...


class System(Protocol):
    """A gateway: requests come in, it dispatches or sheds each exactly once."""

    name: str
    knowledge: Knowledge

    def start(self, fleet: Fleet) -> None:
        """The fleet is there (cold); nothing has arrived yet."""

    def arrive(self, request: SimRequest) -> None:
        """A client sent a request."""

    def first_token(self, request: SimRequest) -> None:
        """The gateway relayed a request's first token."""

    def prompt_ready(self, request: SimRequest) -> None:
        """The prefill engine of a pair has computed the prompt."""

    def transferred(self, request: SimRequest, tokens: int, transfer_s: float) -> None:
        """The other engine of the pair has the blocks of ``tokens`` tokens, after that time."""

    def finished(self, request: SimRequest) -> None:
        """The gateway relayed a request's last token."""

    def stepped(self, replica: int) -> None:
        """Tokens came from a yielding engine: it has just ended a step."""

    def kv_events(self, replica: int, ops: list[KvOp]) -> None:
        """An engine's blocks changed."""

    def stats(self, stats: PolledStats) -> None:
        """An engine's metrics were polled."""


class BaseSystem:
    """A system that hears nothing; subclasses override what they need."""

    name = "base"
    knowledge = Knowledge()

    def start(self, fleet: Fleet) -> None:
        """Keep the fleet."""
        self.fleet = fleet
        self.replicas = len(fleet.engines)

    def first_token(self, request: SimRequest) -> None:
        """Nothing."""

    def finished(self, request: SimRequest) -> None:
        """Nothing."""

    def prompt_ready(self, request: SimRequest) -> None:
        """Nothing."""

    def transferred(self, request: SimRequest, tokens: int, transfer_s: float) -> None:
        """Nothing."""

    def stepped(self, replica: int) -> None:
        """Nothing."""

    def kv_events(self, replica: int, ops: list[KvOp]) -> None:
        """Nothing."""

    def stats(self, stats: PolledStats) -> None:
        """Nothing."""
