"""A ledger in memory, and what has to be right about it whatever happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from deployments.testing.counting import Meter
from weir.ledger import Part, UsageRecord
from weir.ledger.record import LATER, ORPHANED

#: Prompt tokens, cached tokens, output tokens.
Sums = tuple[int, int, int]


class RecordingLedger:
    """Keeps all records, in the order in which they were noted."""

    def __init__(self) -> None:
        self.records: list[UsageRecord] = []

    def note(self, records: Sequence[UsageRecord]) -> None:
        """See :class:`deployments.gateway.booking.Ledger`."""
        self.records += records

    def counted(self, replica: str) -> Sums:
        """What the records say of a replica's engine."""
        own = [r for r in self._taken() if r.replica == replica]
        return (
            sum(r.prompt_tokens for r in own),
            sum(r.cached_tokens for r in own),
            sum(r.output_tokens for r in own),
        )

    def _taken(self) -> Iterator[UsageRecord]:
        """The records as the database takes them: of orphans, what other records leave."""
        orphans = {r.leg: r for r in self.records if r.part is Part.ORPHAN}
        others = {r.leg: r for r in self.records if r.part is not Part.ORPHAN}
        yield from others.values()
        for leg, record in orphans.items():
            own = leg.removesuffix(ORPHANED)
            parts = [others[part] for part in (own, own + LATER) if part in others]
            rest = {
                name: max(0, getattr(record, name) - sum(getattr(each, name) for each in parts))
                for name in ("prompt_tokens", "cached_tokens", "output_tokens")
            }
            yield msgspec.structs.replace(record, **rest)

    def billed(self, tenant: str) -> tuple[Sums, int]:
        """What a tenant pays for, and the price in nano-USD."""
        own = [r for r in self.records if r.tenant == tenant]
        sums = (
            sum(r.billed_prompt_tokens for r in own),
            sum(r.billed_cached_tokens for r in own),
            sum(r.billed_output_tokens for r in own),
        )
        return sums, sum(r.nano_usd for r in own)

    def wrong(self, meters: Mapping[str, Meter], lost: Iterable[str]) -> str:
        """What contradicts the engines' counters; empty where nothing does. Of the replicas that
        were ``lost``, an engine may have counted more than anybody has been told."""
        legs = Counter(r.leg for r in self.records if r.part is not Part.ORPHAN)
        if twice := [leg for leg, count in legs.items() if count > 1]:
            return f"written twice: {twice}"
        for name, meter in meters.items():
            said, there = self.counted(name), counters(meter)
            if said != there and name not in lost:
                return f"{name}: the ledger has {said}, the engine {there}"
            if any(mine > theirs for mine, theirs in zip(said, there, strict=True)):
                return f"{name}: the ledger has {said}, the engine only {there}"
        without = (Part.LATE, Part.ORPHAN)
        requests = {r.request for r in self.records if r.part not in without}
        counted = sum(r.requests for r in self.records)
        if counted < len(requests):
            return f"{counted} requests are counted where there were {len(requests)}"
        return ""


def counters(meter: Meter) -> Sums:
    """An engine's own: a prompt counts as soon as it is prefilled."""
    done = [served for served in meter.streams if served.prefilled]
    return (
        sum(served.prompt_tokens for served in done),
        sum(served.cached_tokens for served in done),
        sum(served.output_tokens for served in meter.streams),
    )
