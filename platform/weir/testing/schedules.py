"""Fault schedules: what goes wrong, where and when, drawn from a seed.

A schedule is data. The same seed and profile give the same schedule, ``print`` shows it a fault a
line, and :meth:`Schedule.without` makes smaller ones, with which a failing schedule is narrowed
down to the faults that matter.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

from weir.testing.links import Direction, Latency, Link, LinkSettings
from weir.testing.network import MemoryNetwork

SLOW = Latency(least_s=0.05, extra_s=0.1)


class Kind(StrEnum):
    """What goes wrong. KILL and FREEZE are of a node, the others of a link."""

    KILL = "kill"  # and start again after the fault's duration
    FREEZE = "freeze"
    REFUSE = "refuse"
    BLACK_HOLE = "black hole"
    STALL = "stall"  # one direction
    SLOW = "slow"
    LOSE = "lose"  # one direction; the connection breaks after the duration
    HALF_CLOSE = "half close"  # one direction
    RESET = "reset"


ONE_DIRECTION = frozenset({Kind.STALL, Kind.LOSE, Kind.HALF_CLOSE})
OF_NODES = frozenset({Kind.KILL, Kind.FREEZE})
MOMENTARY = frozenset({Kind.HALF_CLOSE, Kind.RESET})


@dataclass(frozen=True, slots=True)
class Fault:
    """``at_s``: after the schedule's start. ``gateway`` is empty for faults of nodes."""

    at_s: float
    kind: Kind
    address: str
    duration_s: float = 0.0
    gateway: str = ""
    direction: Direction | None = None

    def __str__(self) -> str:
        where = f"{self.gateway} - {self.address}" if self.gateway else self.address
        way = f" {self.direction}" if self.direction is not None else ""
        span = f" for {self.duration_s:.3f} s" if self.duration_s else ""
        return f"{self.at_s:9.3f} s  {self.kind:10} {where}{way}{span}"


@dataclass(frozen=True, slots=True)
class Profile:
    """What to draw schedules from.

    ``span_s``: faults begin within it. ``mean_faults``: per schedule, at least one. Durations are
    log-uniform between ``shortest_s`` and ``longest_s``. ``weights``: how often each kind comes.
    ``up_at_least``: faults of nodes leave so many nodes untouched at any time.
    """

    gateways: tuple[str, ...]
    addresses: tuple[str, ...]
    span_s: float = 30.0
    mean_faults: float = 4.0
    shortest_s: float = 0.01
    longest_s: float = 20.0
    weights: tuple[tuple[Kind, float], ...] = tuple((kind, 1.0) for kind in Kind)
    up_at_least: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Faults in the order of their times, and the seed that they came from."""

    seed: int
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return "\n".join([f"schedule of seed {self.seed}", *map(str, self.faults)])

    @property
    def end_s(self) -> float:
        """When the last fault is over, after the schedule's start."""
        return max((fault.at_s + fault.duration_s for fault in self.faults), default=0.0)

    def without(self, number: int) -> Schedule:
        """The same with one fault less; ``number`` counts from 0."""
        return replace(self, faults=self.faults[:number] + self.faults[number + 1 :])


def draw_schedule(seed: int, profile: Profile) -> Schedule:
    """The schedule of a seed."""
    random = Random(f"schedule|{seed}")
    number = 1 + int(random.expovariate(1 / max(profile.mean_faults - 1, 1e-9)) + 0.5)
    times = sorted(random.uniform(0, profile.span_s) for _ in range(number))
    faults: list[Fault] = []
    for at_s in times:
        fault = _draw_fault(round(at_s, 3), random, profile)
        if _leaves_enough([*faults, fault], profile):
            faults.append(fault)
    return Schedule(seed, tuple(faults))


def _draw_fault(at_s: float, random: Random, profile: Profile) -> Fault:
    kinds, weights = zip(*profile.weights, strict=True)
    kind = random.choices(kinds, weights)[0]
    ratio = profile.longest_s / profile.shortest_s
    lasting_s = round(profile.shortest_s * ratio ** random.random(), 3)
    address, gateway = random.choice(profile.addresses), random.choice(profile.gateways)
    direction = random.choice(tuple(Direction))
    return Fault(
        at_s,
        kind,
        address,
        0.0 if kind in MOMENTARY else lasting_s,
        "" if kind in OF_NODES else gateway,
        direction if kind in ONE_DIRECTION else None,
    )


def _leaves_enough(faults: Sequence[Fault], profile: Profile) -> bool:
    at_s = faults[-1].at_s
    touched = {
        fault.address
        for fault in faults
        if fault.kind in OF_NODES and fault.at_s + fault.duration_s >= at_s
    }
    return len(profile.addresses) - len(touched) >= profile.up_at_least


async def play(schedule: Schedule, network: MemoryNetwork) -> None:
    """Make the faults happen, from now on; returns when the last one is over.

    Faults of one kind on one target that overlap are one, until the last of them ends.
    """
    player = _Player(network)
    start_s = asyncio.get_running_loop().time()
    events = [(fault.at_s, 1, number, fault) for number, fault in enumerate(schedule.faults)]
    events += [(f.at_s + f.duration_s, 0, number, f) for _, _, number, f in events if f.duration_s]
    for at_s, begins, _, fault in sorted(events, key=lambda event: event[:3]):
        await asyncio.sleep(max(0.0, start_s + at_s - asyncio.get_running_loop().time()))
        player.change(fault, begins=bool(begins))


class _Player:
    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._depth: Counter[tuple[Kind, str, str, Direction | None]] = Counter()
        self._usual: dict[Link, LinkSettings] = {}

    def change(self, fault: Fault, *, begins: bool) -> None:
        """Begin or end a fault, unless another of its kind holds its target."""
        key = (fault.kind, fault.gateway, fault.address, fault.direction)
        depth = self._depth[key] = self._depth[key] + (1 if begins else -1)
        if fault.duration_s and depth != int(begins) and fault.kind is not Kind.LOSE:
            return
        if fault.kind in OF_NODES:
            self._change_node(fault, begins)
        else:
            self._change_link(fault, self._network.link(fault.gateway, fault.address), begins)

    def _change_node(self, fault: Fault, begins: bool) -> None:
        node = self._network.node(fault.address)
        if fault.kind is Kind.KILL:
            node.kill() if begins else node.start()
        elif begins:
            node.freeze()
        else:
            node.resume()

    def _change_link(self, fault: Fault, link: Link, begins: bool) -> None:
        match fault.kind:
            case Kind.REFUSE:
                link.refuses = begins
            case Kind.BLACK_HOLE:
                link.black_hole = begins
            case Kind.SLOW:
                self._slow(link, begins)
            case Kind.RESET:
                link.reset()
            case _:
                assert fault.direction is not None
                self._change_direction(fault, link, fault.direction, begins)

    def _slow(self, link: Link, begins: bool) -> None:
        if begins:
            self._usual[link] = link.settings
            link.settings = replace(link.settings, latency=SLOW)
        else:
            link.settings = self._usual.pop(link)

    def _change_direction(self, fault: Fault, link: Link, way: Direction, begins: bool) -> None:
        actions: dict[tuple[Kind, bool], Callable[[], None]] = {
            (Kind.STALL, True): lambda: link.stall(way),
            (Kind.STALL, False): lambda: link.flow(way),
            (Kind.LOSE, True): lambda: link.lose(way, fault.duration_s),
            (Kind.HALF_CLOSE, True): lambda: link.half_close(way),
        }
        action = actions.get((fault.kind, begins))
        if action is not None:
            action()
