"""What gateways tell of demand and of the replicas that they reach, in msgpack.

Counts only grow, from a gateway's start on: whoever reads two reports has the rates between them,
and a report that is lost costs nothing.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

_Number = TypeVar("_Number", int, float)
#: Upper bounds of the bins of times, in seconds; the last bin has what is longer.
BINS_S: tuple[float, ...] = tuple(round(0.005 * 1.5**i, 4) for i in range(26))


def bin_of(value_s: float) -> int:
    """Which bin a time belongs to."""
    return bisect.bisect_left(BINS_S, value_s)


def quantile_s(counts: Sequence[int], share: float) -> float:
    """The upper bound of the bin in which that share of the times is reached; 0 without any."""
    total = sum(counts)
    if not total:
        return 0.0
    left = share * total
    for number, count in enumerate(counts):
        left -= count
        if left <= 1e-9 and count:
            return BINS_S[min(number, len(BINS_S) - 1)]
    return BINS_S[-1]


def no_times() -> list[int]:
    """Bins without any times in them."""
    return [0] * (len(BINS_S) + 1)


class ClassTold(msgspec.Struct, array_like=True):
    """One priority class of a model. The ``waiting_*`` fields and ``generating``, the answers under
    way, are of now, the others are counts.
    ``computed_tokens``: prompt tokens that no replica had cached; ``output_tokens``: as expected
    at arrival. ``ttft``, ``tpot``: answers by bin of :data:`BINS_S`; ``judged``: answers whose
    class has a limit, or whose TPOT is known; ``*_met``: of them, those within. ``may_spill``:
    answers that the student may give where that is cheaper; ``spilt``: those that it gives, which
    are not among the arrivals."""

    arrivals: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    output_tokens: int = 0
    ttft: list[int] = msgspec.field(default_factory=no_times)
    tpot: list[int] = msgspec.field(default_factory=no_times)
    ttft_judged: int = 0
    ttft_met: int = 0
    tpot_judged: int = 0
    tpot_met: int = 0
    waiting_requests: int = 0
    waiting_tokens: float = 0.0
    waiting_output_tokens: float = 0.0
    oldest_wait_s: float = 0.0
    may_spill: int = 0
    spilt: int = 0
    generating: int = 0


class ReplicaTold(msgspec.Struct, array_like=True):
    """One replica, as it last said of itself. ``reached``: it can be sent requests; ``kv_use`` in
    [0, 1]; ``steps`` and what follows are counts since its engine's start;
    ``interrupted``: its machine is about to be taken away; ``role``: what it does now, whatever its
    pool is for."""

    pool: str = ""
    reached: bool = False
    draining: bool = False
    started_s: float = 0.0
    running: int = 0
    waiting: int = 0
    kv_use: float = 0.0
    most_running: int = 0
    steps: int = 0
    busy_s: float = 0.0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    interrupted: bool = False
    role: str = "mixed"


class ModelTold(msgspec.Struct, array_like=True):
    """One model, as one gateway sees it. ``generating``: answers that it has under way."""

    classes: dict[str, ClassTold] = {}
    replicas: dict[str, ReplicaTold] = {}
    generating: int = 0


class GatewayTold(msgspec.Struct, array_like=True):
    """``gateway``: its name, which no other process has had. Times in seconds since the epoch."""

    gateway: str
    began_s: float
    at_s: float
    models: dict[str, ModelTold] = {}


class PoolFigures(msgspec.Struct):
    """What was decided of a pool, and what is reckoned with; in the names of the metrics."""

    model: str
    pool: str
    target: int
    usd_per_hour: float
    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    capacity_error: float
    start_seconds: float
    interruptions_per_hour: float


def pack_figures(figures: Sequence[PoolFigures]) -> bytes:
    """As it is kept in Redis."""
    return msgspec.msgpack.encode(list(figures))


def unpack_figures(raw: bytes | None) -> list[PoolFigures]:
    """Nothing for what another version of weir has written."""
    try:
        return msgspec.msgpack.decode(raw or b"\x90", type=list[PoolFigures])
    except msgspec.MsgspecError:
        return []


def pack_by_model(decided: Mapping[str, Mapping[str, float]]) -> bytes:
    """What was decided for parts of models, as it is kept in Redis: shares of requests for the
    student by class, or replicas that only compute prompts by pool."""
    return msgspec.msgpack.encode({model: dict(each) for model, each in decided.items()})


def unpack_by_model(raw: bytes | None, kind: type[_Number]) -> dict[str, dict[str, _Number]]:
    """Nothing for what another version of weir has written."""
    try:
        return msgspec.msgpack.decode(raw or b"\x80", type=dict[str, dict[str, kind]])  # type: ignore[valid-type]
    except msgspec.MsgspecError:
        return {}


def pack(told: GatewayTold) -> bytes:
    """As it is kept in Redis."""
    return msgspec.msgpack.encode(told)


def unpack(raw: bytes) -> GatewayTold | None:
    """None for what another version of weir has written."""
    try:
        return msgspec.msgpack.decode(raw, type=GatewayTold)
    except msgspec.MsgspecError:
        return None
