"""Head-room: a class keeps to its share while a more urgent one is active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from router.admission.limit import Limit, Standing, register
from weir.settings.admission import Share


@dataclass(frozen=True, slots=True)
class HeadRoomParams:
    """``after_s``: so long after the last dispatch of a more urgent class the others may use
    everything (infinity: never)."""

    after_s: Annotated[float, Field(ge=0)] = 10.0


@register("head-room", HeadRoomParams)
class HeadRoom(Limit):
    """The most urgent class has none before it, and always keeps to its share.

    Worth, by how much of the places batch may fill while chat is active: with 0.2 of them chat's
    TTFT p99 is 1.25 times that of chat alone, with 0.3 it is 1.34, for 3 % of the tokens per second
    (means of 3 seeds, ``weir bench priority``; docs/admission.md).
    """

    def __init__(self, params: HeadRoomParams) -> None:
        self._after_s = params.after_s

    def share(self, standing: Standing) -> Share | None:
        if standing.most_urgent or standing.urgent_idle_s < self._after_s:
            return standing.class_share
        return None
