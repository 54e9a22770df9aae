"""Whether a request may queue, and what a refused one is told: why, and when to try again."""

from __future__ import annotations

import math

from router.admission.outcomes import Refusal, Shed, Spill, SpillRule
from router.admission.waiting import Item
from weir.errors import OverloadedError, RateLimitError, WeirError
from weir.settings.admission import AdmissionSettings


class Refuser:
    """Judges offers, and words refusals. Keeps no state of its own."""

    def __init__(self, settings: AdmissionSettings, spill: SpillRule | None) -> None:
        self._settings = settings
        self._spill = spill

    def at_the_door(self, item: Item, now_s: float) -> Shed | Spill | None:
        """None if ``item`` (not counted yet) may queue."""
        refusal = self._bounds(item) or self._hopeless(item, now_s)
        if refusal is not None:
            return self.refuse(item, refusal, now_s)
        if self._spill is None:
            return None
        predicted = item.priority_class.predicted_wait_s(item.tenant, now_s)
        reason = self._spill(item.request, predicted, None)
        return Spill(item.request, reason) if reason is not None else None

    def refuse(self, item: Item, refusal: Refusal, now_s: float) -> Shed | Spill:
        """The outcome for ``item``, which is not (or no longer) counted as waiting."""
        retry_after_s = self._retry_after_s(item, refusal, now_s)
        if self._spill is not None:
            predicted = item.priority_class.predicted_wait_s(item.tenant, now_s)
            reason = self._spill(item.request, predicted, refusal)
            if reason is not None:
                return Spill(item.request, reason, refusal, retry_after_s)
        return Shed(item.request, refusal, _error(item, refusal, now_s, retry_after_s))

    def _bounds(self, item: Item) -> Refusal | None:
        c, tenant = item.priority_class, item.tenant
        free = c.settings.max_requests - c.waiting
        free_bytes = c.settings.max_bytes - c.waiting_bytes
        if free < 1 or item.body_bytes > free_bytes:
            return Refusal.QUEUE_FULL
        part = self._settings.tenant_share_of_free
        if tenant.waiting >= part * free or tenant.waiting_bytes > part * free_bytes:
            return Refusal.TENANT_SHARE
        return None

    def _hopeless(self, item: Item, now_s: float) -> Refusal | None:
        """Refused at the door only where the class sheds late requests, and only when even the
        predicted wait is known to be too long: better told now than after waiting."""
        c = item.priority_class
        if c.settings.on_hopeless != "shed":
            return None
        predicted = c.predicted_wait_s(item.tenant, now_s) or 0.0
        return Refusal.DEADLINE if now_s + predicted > item.start_by_s else None

    def _retry_after_s(self, item: Item, refusal: Refusal, now_s: float) -> float:
        """When a retry would find the queue half as long as now, at its measured drain rate; for
        a tenant over its own share, its own part of the queue."""
        s = self._settings
        whose = item.tenant if refusal is Refusal.TENANT_SHARE else None
        wait_s = item.priority_class.predicted_wait_s(whose, now_s)
        if wait_s is None:
            return s.min_retry_after_s
        half = wait_s / 2.0 if math.isfinite(wait_s) else s.max_retry_after_s
        return min(s.max_retry_after_s, max(s.min_retry_after_s, half))


def _error(item: Item, refusal: Refusal, now_s: float, retry_after_s: float) -> WeirError:
    c, waited_s = item.priority_class, now_s - item.offered_s
    name, bounds = c.name, c.settings
    if refusal is Refusal.TENANT_SHARE:
        return RateLimitError(
            f"too many of your {name} requests are waiting ({item.tenant.waiting}); "
            "the rest of the queue is kept for other tenants",
            retry_after_s=retry_after_s,
        )
    if refusal is Refusal.QUEUE_FULL:
        # How full it is of others' requests is not for a tenant to know.
        why = f"the {name} queue is full"
    elif refusal is Refusal.DEADLINE:
        why = f"the request can no longer meet its deadline (waited {waited_s:.1f} s)"
    elif refusal is Refusal.WAIT_LIMIT:
        why = f"no replica had room within the {name} class's limit of {bounds.max_wait_s} s"
    else:
        why = "the queue is closing"
    return OverloadedError(why, retry_after_s=retry_after_s)
