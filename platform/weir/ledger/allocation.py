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
from math import lcm
from typing import Generic, TypeVar

Who = TypeVar("Who", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Allocation(Generic[Who]):
    """``nano_usd`` by who bears it, and what nobody does. Together they are what is paid."""

    nano_usd: Mapping[Who, int]
    idle_nano_usd: int


def allocate(paid_nano_usd: int, wall: int, work: Mapping[Who, int]) -> Allocation[Who]:
    """Share what is paid for ``wall`` of replicas' time among those who have done ``work`` in it,
    both in the same unit.

    More work than there was time (a stream that ended in this hour has worked in the one before)
    leaves nothing idle.

    Raises:
        ValueError: something is negative.
    """
    if paid_nano_usd < 0 or wall < 0 or any(own < 0 for own in work.values()):
        raise ValueError("amounts and times are not negative")
    whole = max(wall, sum(work.values()))
    borne: dict[Who, int] = {}
    done = before = 0
    for who, own in work.items():
        done += own
        until_now = paid_nano_usd * done // whole if whole else 0
        borne[who], before = until_now - before, until_now
    return Allocation(borne, paid_nano_usd - before)


def paid_nano_usd(time_ms: int, nano_usd_per_hour: int) -> int:
    """What so much time costs, rounded half to even."""
    return round(Fraction(time_ms * nano_usd_per_hour, 3_600_000))


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a pool's replicas took for a token, as far as they have told: ``prefill`` and
    ``decode`` in parts of a microsecond, of which there are ``parts``. So work is a whole number,
    and its sum the same however it is grouped."""

    prefill: int = 0
    decode: int = 0
    parts: int = 1

    @classmethod
    def of(cls, prefill_us: int, prompt_tokens: int, decode_us: int, output_tokens: int) -> Pace:
        """From what was told: times, and the tokens that they were for."""
        prefill = Fraction(prefill_us, prompt_tokens) if prompt_tokens else Fraction(0)
        decode = Fraction(decode_us, output_tokens) if output_tokens else Fraction(0)
        parts = lcm(prefill.denominator, decode.denominator)
        return cls(int(prefill * parts), int(decode * parts), parts)

    def work(self, told_us: int, prompt_tokens: int, output_tokens: int) -> int:
        """Work in parts of a microsecond: what was told, and tokens that nobody has told of."""
        return told_us * self.parts + prompt_tokens * self.prefill + output_tokens * self.decode
