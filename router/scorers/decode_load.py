"""Decode load: how much each decode step of the replica has to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.scoring import Scale, less_is_better, register_scorer
from router.snapshot import Snapshot
from router.types import RouteRequest


@dataclass(frozen=True, slots=True)
class DecodeLoadParams:
    """A step costs by sequence (weights are read once for all) and by context token (its KV is
    read for each): ``context_tokens_per_request`` tokens cost as much as one more sequence.
    ``scale_requests``: the load that scores ½."""

    context_tokens_per_request: Scale = 4096.0
    scale_requests: Scale = 32.0


@register_scorer("decode-load", DecodeLoadParams)
class DecodeLoad:
    """Requests in flight plus their context, in requests."""

    def __init__(self, params: DecodeLoadParams) -> None:
        self._params = params

    def scores(self, request: RouteRequest, snapshot: Snapshot) -> Sequence[float]:
        columns, per = snapshot.columns, self._params.context_tokens_per_request
        load = [
            requests + context / per
            for requests, context in zip(columns.requests, columns.context_tokens, strict=True)
        ]
        return less_is_better(load, self._params.scale_requests)
