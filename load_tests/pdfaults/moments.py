"""When a replica is lost, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Point(StrEnum):
    """Where a request is, as its replicas' front ends see it. ``KEEP``: the prefill replica was
    asked for the prompt; ``KEPT``: it has computed it; ``TAKE``: the answering replica was asked to
    fetch it; ``_BEGUN``: the engine has been told; ``DECODE``: some tokens were put out."""

    KEEP = "asked for the prompt"
    KEEP_BEGUN = "prefill has begun"
    KEPT = "the prompt is computed"
    TAKE = "asked to fetch it"
    TAKE_BEGUN = "fetching has begun"
    DECODE = "tokens are put out"


class Side(StrEnum):
    """Which of the two replicas."""

    PREFILL = "prefill"
    DECODE = "decode"


class Way(StrEnum):
    """How it is lost. ``FREED``: not at all, but its blocks are (their lease is over before anybody
    asks for them, and other prompts have been put into their place)."""

    KILLED = "SIGKILL"
    FROZEN = "SIGSTOP, goes on later"
    FROZEN_FOR_GOOD = "SIGSTOP for good"
    FREED = "blocks are freed"


@dataclass(frozen=True, slots=True)
class Moment:
    """``side`` is lost when the request is at ``point``."""

    name: str
    side: Side
    point: Point


MOMENTS = (
    Moment("prefill side, before the prefill", Side.PREFILL, Point.KEEP),
    Moment("prefill side, in the prefill", Side.PREFILL, Point.KEEP_BEGUN),
    Moment("prefill side, between prefill and hand-off", Side.PREFILL, Point.KEPT),
    Moment("prefill side, before the transfer", Side.PREFILL, Point.TAKE),
    Moment("prefill side, in the transfer", Side.PREFILL, Point.TAKE_BEGUN),
    Moment("prefill side, mid-decode", Side.PREFILL, Point.DECODE),
    Moment("decode side, before the prefill", Side.DECODE, Point.KEEP),
    Moment("decode side, in the prefill", Side.DECODE, Point.KEEP_BEGUN),
    Moment("decode side, between prefill and hand-off", Side.DECODE, Point.KEPT),
    Moment("decode side, in the transfer", Side.DECODE, Point.TAKE_BEGUN),
    Moment("decode side, mid-decode", Side.DECODE, Point.DECODE),
)
FREED = Moment("the kept blocks, before the transfer", Side.PREFILL, Point.KEPT)
LOSSES = (Way.KILLED, Way.FROZEN_FOR_GOOD, Way.FROZEN)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is injected."""

    moment: Moment
    way: Way

    @property
    def name(self) -> str:
        """As in the report."""
        return f"{self.moment.name}: {self.way}"


FAULTS: Sequence[Fault] = (
    Fault(FREED, Way.FREED),
    *(Fault(moment, way) for way in LOSSES for moment in MOMENTS),
)
