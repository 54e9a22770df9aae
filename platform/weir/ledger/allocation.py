"""Who bears what a replica cost: pure, and exact.

In one hour of one pool, what is paid is the replicas' time times its price. Each leg bears the part
of it that its own work is of the replicas' time; what is left is idle. Amounts are whole nano-USD.
The legs come one after the other, and each bears the difference that it makes to the rounded sum:
so the parts add up, and no rounding is lost or counted twice.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

Who = TypeVar("Who", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Allocation(Generic[Who]):
    """``nano_usd`` by who bears it, and what nobody does. Together they are what is paid."""

    nano_usd: Mapping[Who, int]
    idle_nano_usd: int


def allocate(paid_nano_usd: int, wall_us: int, work_us: Mapping[Who, int]) -> Allocation[Who]:
    """Share what is paid for ``wall_us`` of replicas' time among those who have done work in it.

    More work than there was time (a stream that ended in this hour has worked in the one before)
    leaves nothing idle.

    Raises:
        ValueError: something is negative.
    """
    if paid_nano_usd < 0 or wall_us < 0 or any(work < 0 for work in work_us.values()):
        raise ValueError("amounts and times are not negative")
    whole_us = max(wall_us, sum(work_us.values()))
    borne: dict[Who, int] = {}
    done_us = before = 0
    for who, work in work_us.items():
        done_us += work
        until_now = paid_nano_usd * done_us // whole_us if whole_us else 0
        borne[who], before = until_now - before, until_now
    return Allocation(borne, paid_nano_usd - before)


def paid_nano_usd(time_ms: int, nano_usd_per_hour: int) -> int:
    """What so much time costs, rounded half to even."""
    return round(Fraction(time_ms * nano_usd_per_hour, 3_600_000))


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a pool's replicas took for a token, in microseconds, as far as they have told."""

    prefill_us: Fraction = Fraction(0)
    decode_us: Fraction = Fraction(0)

    @classmethod
    def of(cls, prefill_us: int, prompt_tokens: int, decode_us: int, output_tokens: int) -> Pace:
        """From what was told: times, and the tokens that they were for."""
        return cls(
            Fraction(prefill_us, prompt_tokens) if prompt_tokens else Fraction(0),
            Fraction(decode_us, output_tokens) if output_tokens else Fraction(0),
        )

    def work_us(self, prompt_tokens: int, output_tokens: int) -> int:
        """How long so many tokens have taken, where nobody has told it."""
        return int(self.prefill_us * prompt_tokens + self.decode_us * output_tokens)
