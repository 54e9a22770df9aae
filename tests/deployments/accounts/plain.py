"""An account as simple as it can be: a list of what is held and one of what was used, counted anew
each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from deployments.gateway.accounts.amounts import NEVER_MS, Ask, Code, Counted, Hold, Reply, Spent

LEASE_MS = 10_000
_MINUTE, _DAY = 60_000, 86_400_000


@dataclass
class Held:
    gateway: str
    hold: Hold
    at_ms: int
    taken_back: bool = False


@dataclass
class Used:
    scope: str
    at_ms: int
    counts: tuple[int, int, int]


def month(at_ms: int) -> int:
    then = datetime.fromtimestamp(at_ms / 1000, UTC)
    return then.year * 12 + then.month - 1


@dataclass
class PlainAccount:
    """Of one tenant."""

    held: list[Held] = field(default_factory=list)
    used: list[Used] = field(default_factory=list)
    #: When, and nano-USD.
    paid: list[tuple[int, int]] = field(default_factory=list)
    leases: dict[str, int] = field(default_factory=dict)
    steps: set[tuple[int, int]] = field(default_factory=set)

    def heard(self, gateway: str, now_ms: int) -> None:
        """A gateway does something."""
        over = {name for name, end_ms in self.leases.items() if end_ms <= now_ms}
        if over and max(self.leases.values()) <= now_ms:
            self.leases.update(dict.fromkeys(over, now_ms + LEASE_MS))
        else:
            for name in over - {gateway}:
                del self.leases[name]
                for each in self.held:
                    each.taken_back = each.taken_back or each.gateway == name
        self.leases[gateway] = now_ms + LEASE_MS

    def reserve(self, gateway: str, ask: Ask, now_ms: int) -> Reply:
        self.heard(gateway, now_ms)
        code, scope, bound, wait_ms = Code.GRANTED, -1, -1, -1
        for i, each in enumerate(ask.scopes):
            amount, counted = ask.of(each.name), self.counted(each.name, now_ms)
            for b, most in enumerate(each.bounds):
                add = amount.concurrent if b == 6 else amount[b % 3]
                if most < 0 or add == 0 or counted.of(b) + add <= most:
                    continue
                clears = 1000
                if add > most:
                    clears = NEVER_MS
                elif b < 6:
                    window = _MINUTE if b < 3 else _DAY
                    clears = window - now_ms % window
                if clears > wait_ms:
                    code, scope, bound, wait_ms = Code.QUOTA, i, b, clears
        if ask.spending is not None:
            would = self.spent(now_ms) + ask.nano_usd
            over = [s for s in ask.spending.steps if would > s.nano_usd]
            if code == Code.GRANTED and ask.may_spill and any(s.spill for s in over):
                code = Code.SPILLED
            elif code == Code.GRANTED and any(s.refuse for s in over):
                code = Code.BUDGET
            if code != Code.QUOTA:
                reached = (s for s in ask.spending.steps if s.webhook and would >= s.nano_usd)
                self.steps |= {(month(now_ms), s.percent) for s in reached}
        if code == Code.GRANTED:
            self.held += [Held(gateway, hold, now_ms) for hold in ask.holds]
        counts = tuple(self.counted(each.name, now_ms) for each in ask.scopes)
        spent = self.spent(now_ms) if ask.spending is not None else 0
        return Reply(code, scope, bound, wait_ms, now_ms, spent, counts)

    def settle(self, gateway: str, spent: Sequence[tuple[Spent, bool]], now_ms: int) -> None:
        """What was used, and whether that is sent for the first time."""
        self.heard(gateway, now_ms)
        for each, first in spent:
            found = [h for h in self.held if (h.gateway, h.hold.id) == (gateway, each.id)]
            if not found and not first:
                continue
            at_ms = found[0].at_ms if found and not found[0].taken_back else now_ms
            self.held = [h for h in self.held if h not in found]
            self.paid.append((at_ms, each.nano_usd))
            self.used += [Used(name, at_ms, amount[:3]) for name, amount in each.amounts]

    def counted(self, scope: str, now_ms: int) -> Counted:
        minute, day, now = [0, 0, 0], [0, 0, 0], 0
        counts = [(u.at_ms, u.counts) for u in self.used if u.scope == scope]
        for held in self.held:
            for name, amount in held.hold.amounts:
                if name == scope and not held.taken_back:
                    counts.append((held.at_ms, amount[:3]))
                    now += amount.concurrent
        for at_ms, amounts in counts:
            for i in range(3):
                minute[i] += amounts[i] if at_ms // _MINUTE == now_ms // _MINUTE else 0
                day[i] += amounts[i] if at_ms // _DAY == now_ms // _DAY else 0
        return Counted(now_ms // _MINUTE, now_ms // _DAY, tuple(minute), tuple(day), now)  # type: ignore[arg-type]

    def spent(self, now_ms: int) -> int:
        held = [(h.at_ms, h.hold.nano_usd) for h in self.held if not h.taken_back]
        return sum(n for at_ms, n in (*self.paid, *held) if month(at_ms) == month(now_ms))
