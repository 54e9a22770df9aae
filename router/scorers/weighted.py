"""Policies made of scorers: "weighted" takes any, "weir" is the default profile."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from router.policy import register
from router.scorers.expected_work import ExpectedWork, ExpectedWorkParams
from router.scoring import SCORERS, WeightedPolicy, build_scorer
from router.snapshot import Snapshot
from router.types import Decision, RouteRequest
from weir.settings.schema import params_schema
from weir.settings.section import Finding, refuse


def _check_scorers(scorers: dict[str, Any]) -> dict[str, Any]:
    refuse(finding for name, given in scorers.items() for finding in _scorer_findings(name, given))
    return scorers


def _scorer_findings(name: str, given: Any) -> Iterator[Finding]:
    if (message := SCORERS.unknown(name)) is not None:
        yield Finding((name,), message)
        return
    options = _options(given)
    weight = options.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight >= 0:
        place = (name, "weight") if isinstance(given, Mapping) else (name,)
        yield Finding(place, f"expected a number ≥ 0, not {weight!r}")
    for finding in SCORERS.findings(name, options):
        yield finding.below(name)


class _ScorersSchema:
    """Each registered scorer: its weight, or a mapping with its weight and parameters."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        del schema, handler
        weight = {
            "type": "number",
            "minimum": 0,
            "description": "How much the scorer counts beside the others",
        }
        scorers = {}
        for name in SCORERS.names():
            made = params_schema(SCORERS.adapter(name))
            keys = {"weight": {**weight, "default": 1.0}, **made.get("properties", {})}
            scorers[name] = {"anyOf": [weight, {**made, "properties": keys}]}
        return {
            "type": "object",
            "properties": scorers,
            "additionalProperties": False,
            "minProperties": 1,
        }


def _options(given: Any) -> dict[str, Any]:
    return dict(given) if isinstance(given, Mapping) else {"weight": given}


@dataclass(frozen=True)
class WeightedParams:
    """``scorers``: name → weight, or name → {weight, …that scorer's parameters}."""

    scorers: Annotated[
        dict[str, Any], Field(min_length=1), AfterValidator(_check_scorers), _ScorersSchema()
    ] = field(default_factory=lambda: {"expected-work": 1.0})


@register("weighted", WeightedParams)
def weighted(params: WeightedParams) -> WeightedPolicy:
    """A profile of scorers with weights, from the settings."""
    parts = []
    for name, given in params.scorers.items():
        options = _options(given)
        weight = float(options.pop("weight", 1.0))
        parts.append((weight, build_scorer(name, options)))
    return WeightedPolicy(parts, "weighted")


@register("weir", ExpectedWorkParams)
class LeastExpectedWork:
    """The default profile: least expected work (see :mod:`router.scorers.expected_work`).

    "weighted" with that one scorer decides the same; this saves the way over scores.
    """

    def __init__(self, params: ExpectedWorkParams) -> None:
        self._work = ExpectedWork(params)

    def choose(self, request: RouteRequest, snapshot: Snapshot, rng: random.Random) -> Decision:
        chosen = snapshot.columns.fleet.ids[self._work.least(request, snapshot, rng)]
        return Decision(chosen, "least-expected-work", snapshot.held.blocks(chosen))

    def costs(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        """For whoever wants to know why."""
        return self._work.costs(request, snapshot)
