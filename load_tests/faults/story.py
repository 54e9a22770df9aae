"""What happens in one run: who asks for what and when, and what goes wrong. Data, from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

from deployments.testing.kinds import KINDS, USUAL_TASKS, Kind
from router.types import Role
from weir.testing.schedules import Profile, Schedule, draw_schedule

TENANTS = ("one", "two", "three")
CLASSES = ("interactive", "standard", "batch")
SPAN_S = 6.0
#: Of a model that writes and embeds, by clients that wait for their answers.
_ASKED = tuple(kind for kind in KINDS if kind.tasks == USUAL_TASKS and not kind.background)


class Change(StrEnum):
    """What happens to a replica besides the faults of :mod:`weir.testing.schedules`."""

    DRAIN = "drain"  # it says that it leaves, is taken out, dies, and comes back
    WITHDRAW = "withdraw"  # it is taken out of the replica set, and comes back
    HANG = "hang"  # its engine makes no step, its front end goes on
    DOWN = "down"  # its engine takes no request
    SEIZE = "seize"  # it freezes and never goes on
    PROMPTS = "prompts"  # it is to compute prompts only
    ANSWERS = "answers"  # it is to answer only


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a replica, for so long."""

    at_s: float
    change: Change
    replica: str
    duration_s: float

    def __str__(self) -> str:
        return f"{self.at_s:9.3f} s  {self.change:10} {self.replica} for {self.duration_s:.3f} s"


@dataclass(frozen=True, slots=True)
class Visit:
    """A client's request; it leaves after ``leaves_s``, if that is not None."""

    at_s: float
    number: int
    tenant: str
    priority_class: str
    kind: Kind
    stream: bool
    tokens: int
    leaves_s: float | None

    @property
    def request_id(self) -> str:
        """Unique within the story."""
        return f"v{self.number}"

    def __str__(self) -> str:
        form = "streamed" if self.stream else "whole"
        gone = "" if self.leaves_s is None else f", leaves after {self.leaves_s:.3f} s"
        told = f"{self.kind.name} ({form}) of {self.tenant}, {self.priority_class}"
        return f"{self.at_s:9.3f} s  {self.request_id}: {told}, {self.tokens} tokens{gone}"


@dataclass(frozen=True, slots=True)
class Story:
    """``guarded``: nothing ever befalls the first replica. ``tight``: small limits, and many
    requests at once, so that queues fill. ``interval_s``: of each replica's engine, per token.
    ``roles``: of each replica; empty where all are mixed. Where there are roles, prompts are handed
    over whenever they can be."""

    seed: int
    replicas: tuple[str, ...]
    interval_s: tuple[float, ...]
    guarded: bool
    tight: bool
    visits: tuple[Visit, ...]
    events: tuple[Event, ...]
    faults: Schedule
    roles: tuple[Role, ...] = ()

    def role(self, replica: str) -> Role:
        """What a replica is for."""
        return self.roles[self.replicas.index(replica)] if self.roles else "mixed"

    def __str__(self) -> str:
        head = f"story of seed {self.seed}: {len(self.replicas)} replicas"
        head += ", the first one guarded" * self.guarded + ", tight limits" * self.tight
        head += f", roles {' '.join(self.roles)}" * bool(self.roles)
        return "\n".join([head, *map(str, self.visits), *map(str, self.events), str(self.faults)])


def draw_story(seed: int) -> Story:
    """The story of a seed."""
    random = Random(f"story|{seed}")
    replicas = tuple(f"r{i}" for i in range(random.randint(2, 5)))
    guarded = random.random() < 0.5
    touched = replicas[1:] if guarded else replicas
    tight = random.random() < 0.3
    number, span_s = (random.randint(10, 24), 1.5) if tight else (random.randint(3, 14), SPAN_S)
    visits = tuple(_visit(i, span_s, random) for i in range(number))
    events = tuple(_event(touched, random) for _ in range(random.choice((0, 0, 1, 1, 2))))
    profile = Profile(("gateway",), touched, span_s=SPAN_S, mean_faults=3.0, longest_s=8.0)
    return Story(
        seed,
        replicas,
        tuple(random.choice((0.02, 0.05, 0.1)) for _ in replicas),
        guarded,
        tight,
        visits,
        events,
        draw_schedule(seed, profile),
        _roles(seed, len(replicas)),
    )


def _roles(seed: int, count: int) -> tuple[Role, ...]:
    """Of its own randomness: what else happens in a story does not depend on them."""
    random = Random(f"roles|{seed}")
    if random.random() < 0.6:
        return ()
    roles: list[Role] = ["prefill", "decode"]
    roles += random.choices(("prefill", "decode", "mixed"), k=count - 2)
    random.shuffle(roles)
    return tuple(roles)


def _visit(number: int, span_s: float, random: Random) -> Visit:
    kind = random.choice(_ASKED)
    leaves_s = round(random.uniform(0.001, 3.0), 3) if random.random() < 0.25 else None
    return Visit(
        round(random.uniform(0, span_s), 3),
        number,
        random.choice(TENANTS),
        random.choice(CLASSES),
        kind,
        kind.streams and random.random() < 0.7,
        # Long for one that leaves: what is not freed then would not soon end by itself.
        random.choice((1, 4, 12, 40) if leaves_s is None else (40, 200)),
        leaves_s,
    )


def _event(replicas: tuple[str, ...], random: Random) -> Event:
    change, replica = random.choice(tuple(Change)), random.choice(replicas)
    return Event(
        round(random.uniform(0, SPAN_S), 3), change, replica, round(random.uniform(0.1, 8.0), 3)
    )
