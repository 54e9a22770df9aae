"""The number that vLLM's priority scheduler gets, in the gateway queue's own order."""

from __future__ import annotations

from collections.abc import Callable, Iterable

_STAMP_BITS = 52


def engine_ranks(urgencies: Iterable[int]) -> dict[tuple[int, int], int]:
    """Rank of each ``(class urgency, lane)``: an urgency's requests in time (lane 0), then its late
    ones (lane 1), then the next urgency's. Also the order in which the queue serves them."""
    keys = [(urgency, lane) for urgency in sorted(set(urgencies)) for lane in (0, 1)]
    return {key: rank for rank, key in enumerate(keys)}


def urgency_of(rank: int) -> int:
    """Which of the classes' urgencies a rank is of (0: the most urgent): what an engine that yields
    goes by. Late requests do not give way to those in time, or a tenant that is late with
    everything would not be served its share."""
    return rank // 2


def engine_urgency(priority: int) -> int:
    """The same, of an engine's priority; 0 for requests that never saw a queue."""
    return urgency_of(priority >> _STAMP_BITS)


class EnginePriority:
    """``rank`` in the high bits, the time of dispatch in microseconds in the low 52.

    vLLM runs the lowest number first, and preempts the highest; both then follow the order in
    which the queue dispatches. Time rather than a counter makes the numbers of several gateways,
    and of a restarted one, comparable; ``wall_clock`` gives seconds since the epoch (52 bits of
    microseconds last until the year 2112) and may step back: a gateway's own numbers of one rank
    still rise. Ranks up to 1023 keep the number below 2**62, within the API's signed 64 bits.
    """

    __slots__ = ("_last", "_wall_clock")

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._last = -1

    def stamp(self, rank: int) -> int:
        """The next number of that rank (0 is the most urgent)."""
        self._last = max(self._last + 1, int(self._wall_clock() * 1e6))
        return (rank << _STAMP_BITS) + self._last
