"""What the account is asked, and what it answers: plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

import msgspec

from weir.cost import nano_usd
from weir.tenancy import Budget, Key, Quotas, Tenant

#: A tenant's bounds, in the order in which :class:`weir.tenancy.Quotas` has them.
BOUNDS: Final = (
    "requests per minute",
    "prompt tokens per minute",
    "output tokens per minute",
    "requests per day",
    "prompt tokens per day",
    "output tokens per day",
    "concurrent requests",
)
UNBOUNDED: Final = -1
#: A wait of so many milliseconds means: never.
NEVER_MS: Final = 4_000_000_000_000_000
_unpack = msgspec.msgpack.Decoder(list[int]).decode
_NAMES: Final = tuple(field.name for field in fields(Quotas))


class Amount(NamedTuple):
    """Of one scope. Tokens are of the prompt and of the output."""

    requests: int = 0
    prompt: int = 0
    output: int = 0
    concurrent: int = 0

    def plus(self, other: Amount) -> Amount:
        """Both together."""
        requests, prompt, output, concurrent = other
        return Amount(
            self.requests + requests,
            self.prompt + prompt,
            self.output + output,
            self.concurrent + concurrent,
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose use is bounded together: a tenant's, one of its keys', or its use of one model.

    ``name``: under which it is counted; ``told``: how it is called in messages; ``bounds``: the
    most of each of :data:`BOUNDS`, or :data:`UNBOUNDED`.
    """

    name: str
    told: str
    bounds: tuple[int, ...]
    #: Whether it is the use of one model.
    of_model: bool = field(init=False)
    #: The number and the amount of each bound that there is.
    limited: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "of_model", self.name.startswith("m:"))
        found = ((i, most) for i, most in enumerate(self.bounds) if most >= 0)
        object.__setattr__(self, "limited", tuple(found))

    @property
    def numbered(self) -> Iterator[int]:
        """The same as the script counts them, from 1, one behind the other."""
        for number, most in self.limited:
            yield number + 1
            yield most

    @property
    def output_tokens(self) -> int | None:
        """The most output tokens that anything may have at all."""
        return min((most for most in (self.bounds[2], self.bounds[5]) if most >= 0), default=None)


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a budget, with its amount."""

    percent: int
    nano_usd: int
    warn: bool = False
    webhook: bool = False
    spill: bool = False
    refuse: bool = False


@dataclass(frozen=True, slots=True)
class Spending:
    """A budget: its amount, and its steps by rising percentage. ``refusing``: the amounts of those
    that refuse; ``stopping``: with those that spill."""

    nano_usd: int
    steps: tuple[Step, ...]
    refusing: tuple[int, ...] = field(init=False)
    stopping: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        steps = self.steps
        refusing = tuple(s.nano_usd for s in steps if s.refuse)
        stopping = tuple(s.nano_usd for s in steps if s.refuse or s.spill)
        object.__setattr__(self, "refusing", refusing)
        object.__setattr__(self, "stopping", stopping)

    @property
    def packed_steps(self) -> list[list[int]]:
        """As the script reads them."""
        return [
            [s.percent, s.nano_usd, int(s.webhook), int(s.spill), int(s.refuse)] for s in self.steps
        ]

    @classmethod
    def of(cls, budget: Budget) -> Spending:
        """The budget of a tenant."""
        whole = nano_usd(budget.usd_per_month)
        steps = (
            Step(step.percent, whole * step.percent // 100, **dict.fromkeys(step.actions, True))
            for step in budget.steps
        )
        return cls(whole, tuple(sorted(steps, key=lambda step: step.percent)))


@dataclass(frozen=True, slots=True)
class Hold:
    """One reservation. ``id`` is unique within the gateway; ``amounts``: by scope's name."""

    id: int
    nano_usd: int
    amounts: tuple[tuple[str, Amount], ...]

    @property
    def kept(self) -> list[Any]:
        """As it is kept in Redis, save that the script fills in month, minute and day."""
        parts = (x for name, amount in self.amounts for x in (name, *amount))
        return [0, 0, 0, self.nano_usd, *parts]


@dataclass(frozen=True, slots=True)
class Ask:
    """Reserve all of ``holds`` or nothing. ``may_spill``: the request may be refused because
    another model is to answer it."""

    tenant: str
    scopes: tuple[Scope, ...]
    holds: tuple[Hold, ...]
    spending: Spending | None = None
    may_spill: bool = False

    @property
    def nano_usd(self) -> int:
        """Of all holds."""
        return sum(hold.nano_usd for hold in self.holds)

    def of(self, scope: str) -> Amount:
        """Of all holds, in that scope."""
        found = None
        for hold in self.holds:
            for name, amount in hold.amounts:
                if name == scope:
                    found = amount if found is None else found.plus(amount)
        return found or Amount()

    def packed(self, told: bool = False) -> list[Any]:
        """As the script reads it, behind the operation's head. ``told``: it is not asked any
        more: count it."""
        spending = self.spending
        return [
            [[s.name, *self.of(s.name), *s.numbered] for s in self.scopes],
            [x for hold in self.holds for x in (hold.id, hold.kept)],
            self.nano_usd,
            spending.nano_usd if spending else 0,
            spending.packed_steps if spending else [],
            int(self.may_spill),
            int(told),
        ]


@dataclass(frozen=True, slots=True)
class Spent:
    """What became of a reservation: it is replaced by what was used. No amounts: nothing was."""

    id: int
    nano_usd: int = 0
    amounts: tuple[tuple[str, Amount], ...] = ()

    def packed(self, first: bool) -> list[Any]:
        """As the script reads it. ``first``: it has not been sent before."""
        parts = (x for name, amount in self.amounts for x in (name, *amount[:3]))
        return [self.id, int(first), self.nano_usd, *parts]


class Counted(NamedTuple):
    """What a scope has used and reserved, in the minute and the day (by their numbers)."""

    minute: int
    day: int
    minutely: tuple[int, int, int]
    daily: tuple[int, int, int]
    concurrent: int

    def of(self, bound: int) -> int:
        """What counts against one of :data:`BOUNDS`."""
        return (*self.minutely, *self.daily, self.concurrent)[bound]


class Code:
    """How an account answers. ``SPILLED``: the budget sends the request to another model."""

    GRANTED: Final = 1
    QUOTA: Final = 0
    BUDGET: Final = -1
    SPILLED: Final = -2
    #: Nobody answers, and what a gateway may allow by itself is used up.
    AWAY: Final = -3


@dataclass(frozen=True, slots=True)
class Reply:
    """``scope`` and ``bound``: which one refuses, if one does, and ``wait_ms`` until it may not.
    ``now_ms``: since the epoch; ``spent_nano_usd``: in the month, reservations included;
    ``counted``: of each scope that was asked for."""

    code: int
    scope: int
    bound: int
    wait_ms: int
    now_ms: int
    spent_nano_usd: int
    counted: tuple[Counted, ...]

    @classmethod
    def read(cls, told: Sequence[Any]) -> Reply:
        """What the script returns."""
        code, scope, bound, wait_ms, now_ms, spent, *packed = told
        counted = tuple(map(_counted, packed))
        return cls(code, scope - 1, bound - 1, wait_ms, now_ms, spent, counted)


def _counted(packed: bytes) -> Counted:
    a = _unpack(packed)
    return Counted(a[0], a[1], (a[2], a[3], a[4]), (a[5], a[6], a[7]), a[8])


def bounds_of(quotas: Quotas) -> tuple[int, ...]:
    """In the order of :data:`BOUNDS`."""
    bounds = (getattr(quotas, name) for name in _NAMES)
    return tuple(UNBOUNDED if most is None else most for most in bounds)


def scopes_of(tenant: Tenant, key: Key | None, model: str) -> tuple[Scope, ...]:
    """The scopes with bounds that a use of the model counts in."""
    quotas: Mapping[str, Quotas] = tenant.model_quotas
    found = [Scope("t", "", bounds_of(tenant.quotas))]
    if key is not None:
        found.append(Scope(f"k:{key.id}", " of this key", bounds_of(key.quotas)))
    if model in quotas:
        found.append(Scope(f"m:{model}", f" of the model {model!r}", bounds_of(quotas[model])))
    return tuple(scope for scope in found if any(most >= 0 for most in scope.bounds))
