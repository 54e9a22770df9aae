"""Settings of service-level objectives: which share of requests is to be good."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from weir.settings.section import Finding, Section, refuse

Objective = Literal["ttft", "tpot", "availability", "quality"]
_OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
#: Below 0.94 the fastest alert could not fire: 14.4 times the budget is about all requests.
Share = Annotated[float, Field(ge=0.94, lt=1)]


class ClassObjectives(Section):
    """A class's own objectives; None: those of ``slo``."""

    ttft: Share | None = None
    tpot: Share | None = None
    availability: Share | None = None
    quality: Share | None = None


class SloSettings(Section):
    """Which share of a tenant's requests of a class is to be good, over ``window_days``.

    ``ttft``: the first token within the class's ``ttft_slo_ms``. ``tpot``: the mean time per later
    token within its ``tpot_slo_ms``. ``availability``: not failed by the platform (a status of 500
    or more). ``quality``: answered by the model that was asked for, not by its student because of
    overload or failure. ``classes``: what differs. ``least_requests``: a tenant with fewer in an
    alert's long window raises no alert, because each failure is a large share of few requests.
    """

    window_days: int = Field(30, ge=30, le=90)
    ttft: Share = 0.99
    tpot: Share = 0.99
    availability: Share = 0.999
    quality: Share = 0.95
    least_requests: int = Field(20, ge=1)
    classes: dict[str, ClassObjectives] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _alerts_can_fire(self) -> SloSettings:
        """The fastest alert is at 2 % of the budget in an hour."""
        least = round(1 - 1 / (0.02 * 24 * self.window_days), 4)
        everywhere = {name: getattr(self, name) for name in _OBJECTIVES}
        places: list[tuple[tuple[str, ...], float | None]] = [
            ((name,), share) for name, share in everywhere.items()
        ]
        for name, own in self.classes.items():
            places += [(("classes", name, each), getattr(own, each)) for each in _OBJECTIVES]
        refuse(
            Finding(place, f"expected at least {least} with window_days {self.window_days}")
            for place, share in places
            if share is not None and share < least
        )
        return self

    def share(self, objective: Objective, priority: str) -> float:
        """The objective of a class."""
        own = self.classes.get(priority)
        given: float | None = None if own is None else getattr(own, objective)
        default: float = getattr(self, objective)
        return default if given is None else given
