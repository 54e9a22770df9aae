"""Adapter resident: the replica has the request's LoRA adapter loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.scoring import register_scorer
from router.types import RouteRequest, Snapshot


@dataclass(frozen=True, slots=True)
class AdapterResidentParams:
    """Nothing to tune."""


@register_scorer("adapter-resident", AdapterResidentParams)
class AdapterResident:
    """1 where it is, 0 where it would have to be loaded; all 1 for the base model."""

    def __init__(self, params: AdapterResidentParams) -> None:
        pass

    def scores(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        adapter, infos = request.adapter, snapshot.columns.fleet.infos
        if adapter is None:
            return [1.0] * len(infos)
        return [1.0 if adapter in info.adapters else 0.0 for info in infos]
