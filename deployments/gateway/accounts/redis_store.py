"""Tenants' accounts in Redis, for all gateways together.

Reserving waits for Redis, for as long as ``timeout_ms`` at most; then, or while Redis is away, the
gateway allows a share by itself (:mod:`deployments.gateway.accounts.allowance`). What was used is
sent without waiting and kept until Redis has acknowledged it. It is counted once, however often it
is sent: the script replaces a reservation only while it is there. So what was allowed without
Redis becomes a reservation there first, and is then replaced like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from deployments.gateway.accounts.allowance import Allowance
from deployments.gateway.accounts.amounts import Ask, Code, Reply, Spent
from deployments.gateway.accounts.calls import ScriptCalls
from deployments.gateway.accounts.known import Known
from features.online import ClusterLink, StoreLink
from weir.metrics import GatewayMetrics
from weir.settings.money import AccountsSettings

_LOG = logging.getLogger("weir.gateway")
#: How late a timer is when the loop was held up.
_LATE_S: Final = 0.002
#: What was sent and not acknowledged for so long hangs.
_SILENCE_S: Final = 2.0
_RETRY_S: Final = 0.1
_CLOSE_S: Final = 2.0
#: Settlements that have time go together, after that.
_TOGETHER_S: Final = 0.1
#: At most so many settlements in one call.
_BATCH: Final = 500


@dataclass(slots=True)
class _Settlement:
    """What replaces a reservation. ``sent_s``: on the loop's clock, None while it is not under
    way; ``first``: it was never sent."""

    tenant: str
    spent: Spent
    sent_s: float | None = None
    first: bool = True


class RedisStore:
    """See :class:`deployments.gateway.accounts.store.Store`. ``who``: unique for this life of
    this gateway. ``now_ms``: milliseconds since the epoch, for what Redis does not decide."""

    def __init__(
        self,
        link: StoreLink | ClusterLink,
        settings: AccountsSettings,
        who: str,
        now_ms: Callable[[], int],
        metrics: GatewayMetrics,
    ) -> None:
        self.link = link
        self._loop = asyncio.get_running_loop()
        self._calls = ScriptCalls(link)
        self._timeout_s = settings.timeout_ms / 1000
        self._lease_ms = round(settings.lease_s * 1000)
        self._who = who
        self._metrics = metrics
        self._known = Known(now_ms)
        self._allowance = Allowance(settings.away_share, self._known, now_ms)
        #: Open reservations in Redis by tenant: these have to be renewed.
        self._open: dict[str, set[int]] = {}
        #: Granted without Redis, which has to be told; by tenant and reservation.
        self._untold: dict[str, dict[int, Ask]] = {}
        self._telling: set[int] = set()
        self._settlements: dict[int, _Settlement] = {}
        #: To be sent with others of their tenants.
        self._together: dict[str, list[_Settlement]] = {}
        self._all_settled = asyncio.Event()
        self._all_settled.set()
        self._retry: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect, and keep reservations alive."""
        self.link.start()
        if self._task is None:
            self._task = self._loop.create_task(self._renew_forever())

    async def aclose(self) -> None:
        """Wait a moment until Redis has acknowledged everything; let go of the connection."""
        for tenant in list(self._together):
            self.hurry(tenant)
        if self.link.state == "up":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._all_settled.wait()
        if self._settlements:
            _LOG.warning("accounts: not settled", extra={"reservations": len(self._settlements)})
        for waiting in (self._task, self._retry):
            if waiting is not None:
                waiting.cancel()
        await self.link.close()

    @property
    def unsettled(self) -> int:
        """What was used, and Redis has not acknowledged."""
        return len(self._settlements)

    def known(self, tenant: str) -> Known | None:
        return self._known if self._calls.reaches(tenant) else None

    async def reserve(self, ask: Ask) -> Reply:
        answer: asyncio.Future[list[Any] | None] = self._loop.create_future()

        def on_reply(numbers: list[Any] | None) -> None:
            if not answer.done():
                answer.set_result(numbers)

        link = self._calls.call(ask.tenant, self._operation("reserve", *ask.packed()), on_reply)
        if link is None:
            return self._alone(ask, sent=False)
        due_s = self._loop.time() + self._timeout_s
        timer = self._loop.call_at(due_s, self._expire, answer, link, due_s)
        try:
            numbers = await answer
        except asyncio.CancelledError:
            # Whether it was reserved or not: nothing is, behind this.
            self.settle(ask.tenant, [Spent(hold.id) for hold in ask.holds])
            raise
        finally:
            timer.cancel()
        if numbers is None:
            return self._alone(ask, sent=True)
        reply = Reply.read(numbers)
        self._known.heard(ask, reply)
        if reply.code == Code.GRANTED:
            self._open.setdefault(ask.tenant, set()).update(hold.id for hold in ask.holds)
        return reply

    def settle(self, tenant: str, spent: Sequence[Spent], together: bool = False) -> None:
        made = [_Settlement(tenant, each) for each in spent]
        for settlement in made:
            self._settlements[settlement.spent.id] = settlement
            self._all_settled.clear()
            if tenant in self._untold:
                self._allowance.settle(tenant, settlement.spent)
        if not together:
            self._send(tenant, made)
            return
        kept = self._together.get(tenant)
        if kept is None:
            kept = self._together[tenant] = []
            self._loop.call_later(_TOGETHER_S, self.hurry, tenant)
        kept += made
        if len(kept) >= _BATCH // 2:
            self.hurry(tenant)

    def hurry(self, tenant: str) -> None:
        kept = self._together.pop(tenant, None)
        if kept:
            self._send(tenant, kept)

    def _alone(self, ask: Ask, sent: bool) -> Reply:
        """Nobody answers. A reservation that was asked for may have been made all the same."""
        reply = self._allowance.reserve(ask)
        self._metrics.account_alone.labels("granted" if reply.code > 0 else "refused").inc()
        if reply.code == Code.GRANTED:
            untold = self._untold.setdefault(ask.tenant, {})
            for hold in ask.holds:
                untold[hold.id] = replace(ask, holds=(hold,))
            self._try_again()
        elif sent:
            self.settle(ask.tenant, [Spent(hold.id) for hold in ask.holds])
        return reply

    def _expire(
        self, answer: asyncio.Future[list[Any] | None], link: StoreLink, due_s: float
    ) -> None:
        if answer.done():
            return
        now_s = self._loop.time()
        if now_s - due_s > _LATE_S:  # the loop was held up; an answer may be there to be read
            self._loop.call_at(now_s + _LATE_S, self._expire, answer, link, now_s + _LATE_S)
            return
        answer.set_result(None)
        link.unanswered()

    def _operation(self, kind: str, *rest: Any) -> list[Any]:
        return [kind, 0, self._who, self._lease_ms, *rest]

    def _send(self, tenant: str, settlements: Iterable[_Settlement]) -> None:
        """Settle what is under way nowhere, and what Redis has heard of."""
        untold = self._untold.get(tenant, {})
        batch = [s for s in settlements if s.sent_s is None and s.spent.id not in untold][:_BATCH]
        if not batch:
            return

        def on_reply(numbers: list[Any] | None) -> None:
            for each in batch:
                each.sent_s = None
                if numbers is not None:
                    self._settled(each)
            if numbers is None:
                self._try_again()

        told = [each.spent.packed(each.first) for each in batch]
        if self._calls.call(tenant, self._operation("settle", *told), on_reply) is None:
            self._try_again()
            return
        now_s = self._loop.time()
        for each in batch:
            each.sent_s, each.first = now_s, False

    def _settled(self, settlement: _Settlement) -> None:
        self._settlements.pop(settlement.spent.id, None)
        if not self._settlements:
            self._all_settled.set()
        held = self._open.get(settlement.tenant)
        if held is not None:
            held.discard(settlement.spent.id)
            if not held:
                del self._open[settlement.tenant]

    def _tell(self, tenant: str, hold_id: int, ask: Ask) -> None:
        """Have Redis count what was granted without it."""
        if hold_id in self._telling:
            return

        def on_reply(numbers: list[Any] | None) -> None:
            self._telling.discard(hold_id)
            if numbers is None:
                self._try_again()
                return
            if len(numbers) > 1:
                self._known.heard(ask, Reply.read(numbers))
            self._told(tenant, hold_id)

        operation = self._operation("reserve", *ask.packed(told=True))
        if self._calls.call(tenant, operation, on_reply) is not None:
            self._telling.add(hold_id)

    def _told(self, tenant: str, hold_id: int) -> None:
        untold = self._untold[tenant]
        del untold[hold_id]
        self._open.setdefault(tenant, set()).add(hold_id)
        if not untold:
            del self._untold[tenant]
            self._allowance.forget(tenant)
        settlement = self._settlements.get(hold_id)
        if settlement is not None:
            self._send(tenant, [settlement])

    def _try_again(self) -> None:
        if self._retry is None:
            self._retry = self._loop.call_later(_RETRY_S, self._catch_up)

    def _catch_up(self) -> None:
        """Tell Redis everything that it has not been told."""
        self._retry = None
        for tenant, untold in list(self._untold.items()):
            if self._calls.reaches(tenant):
                for hold_id, ask in list(untold.items())[:_BATCH]:
                    self._tell(tenant, hold_id, ask)
        by_tenant: dict[str, list[_Settlement]] = {}
        for each in self._settlements.values():
            by_tenant.setdefault(each.tenant, []).append(each)
        for tenant, settlements in by_tenant.items():
            if self._calls.reaches(tenant):
                self._send(tenant, settlements)
        waiting = any(each.sent_s is None for each in self._settlements.values())
        if waiting or self._untold:
            self._try_again()

    async def _renew_forever(self) -> None:
        """What runs for long is not taken for the reservation of a gateway that is gone."""
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            for tenant in list(self._open):
                self._calls.call(tenant, self._operation("renew"), lambda _: None)
            horizon_s = self._loop.time() - _SILENCE_S
            hanging = (s.sent_s for s in self._settlements.values() if s.sent_s is not None)
            if any(sent_s < horizon_s for sent_s in hanging) and isinstance(self.link, StoreLink):
                self.link.distrust("what was used is not acknowledged")
