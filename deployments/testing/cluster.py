"""A gateway, replicas that can fail, and clients: over real sockets, or in virtual time.

Both are built of what ships: the gateway by ``build_gateway``, the replicas' front end by
``TokenStreams``. Only the engine (:mod:`deployments.testing.counting`) and, in virtual time, the
network in between are stand-ins.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from deployments.gateway.accounts import Book, LocalStore
from deployments.gateway.connection import ReplicaConnection
from deployments.gateway.handle import Gateway
from deployments.gateway.model import Model
from deployments.gateway.responses import Responses
from deployments.roles import RoleKeeper
from deployments.streams import TokenStreams
from deployments.testing.counting import BLOCK_TOKENS, CountingGenerator, Meter
from deployments.testing.exchange import Exchange
from deployments.testing.kept import KeptBlocks
from deployments.testing.kinds import USUAL_TASKS
from deployments.testing.recording import RecordingLedger
from router.prefix_index import PrefixIndex
from router.types import KvFeed, ReplicaInfo

CONTEXT_TOKENS = 512
#: Prompts are hashed; nothing is published, so what was dispatched counts as cached.
_FEED = KvFeed("none", None, "sha256_cbor", "0")


class SilentFeed:
    """A cache feed that tells nothing."""

    async def follow(self, index: PrefixIndex, info: ReplicaInfo) -> None:
        """See :class:`deployments.gateway.transport.CacheFeed`."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What a tenant was charged for one model."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float


class Host(ABC):
    """One replica's machine. ``generator`` and ``streams`` are of its present life."""

    def __init__(self, name: str, interval_s: float, kept: KeptBlocks) -> None:
        self.name = name
        self.meter = Meter()
        self.interval_s = interval_s
        self.kept = kept
        self._boot()

    def _boot(self) -> TokenStreams:
        self.generator = CountingGenerator(self.interval_s, self.meter, self.kept)
        self.streams = TokenStreams(self.generator, RoleKeeper(changes=True, least_s=0.0))
        return self.streams

    def freeze_engine(self) -> None:
        """The engine makes no step; the replica's front end goes on."""
        self.generator.freeze()

    def thaw_engine(self) -> None:
        """The engine goes on."""
        self.generator.thaw()

    @property
    @abstractmethod
    def address(self) -> str:
        """Where gateways connect."""

    async def kill(self) -> None:
        """End it at once."""
        self.kept.lose(self.generator)
        await self._kill()

    @property
    @abstractmethod
    def survived(self) -> bool:
        """It was never killed: what its engine has counted, it can still tell."""

    @abstractmethod
    async def _kill(self) -> None: ...

    @abstractmethod
    def freeze(self) -> None:
        """As SIGSTOP: nothing of it runs."""

    @abstractmethod
    def thaw(self) -> None:
        """As SIGCONT."""


class Cluster(ABC):
    """``gateway`` has one model; ``hosts`` are its replicas, whose engines can do ``tasks``.
    ``responses`` are those that the gateway keeps."""

    gateway: Gateway
    model: Model
    responses: Responses
    #: Whether its time is virtual.
    virtual: bool

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        #: Replicas to which a connection broke: if they ended then, or nobody is connected to them
        #: any more, what they said last has reached nobody.
        self.cut_off: set[str] = set()
        self.ledger = RecordingLedger()
        self.kept = KeptBlocks()
        self.tasks = USUAL_TASKS
        self.asked = 0

    def watch_connections(self) -> None:
        """Note whose connections break. Called once the model is there."""
        fleet = self.model.fleet
        lost = fleet.lost

        def noting(connection: ReplicaConnection) -> None:
            self.cut_off.add(connection.replica_id)
            lost(connection)

        fleet.lost = noting  # type: ignore[method-assign]

    @abstractmethod
    async def add(self, name: str, interval_s: float = 0.005, **details: Any) -> Host:
        """A replica, announced and connected."""

    @abstractmethod
    def ask(self, path: str, body: Mapping[str, Any], key: str, **headers: str) -> Exchange:
        """A client's request."""

    @property
    def book(self) -> Book:
        """What its tenants have used and reserved."""
        store = self.gateway.parts.account.store
        assert isinstance(store, LocalStore)
        return store.book

    def withdraw(self, host: Host) -> None:
        """It is no member any more."""
        members = self.model.router.members
        self.model.router.set_replicas(m for m in members if m.replica_id != host.name)

    def announce(self, host: Host, **details: Any) -> None:
        """Make a replica a member."""
        info = ReplicaInfo(
            host.name,
            address=host.address,
            kv_blocks_total=10_000,
            block_size=BLOCK_TOKENS,
            max_model_len=CONTEXT_TOKENS,
            tasks=self.tasks,
            kv_feed=_FEED,
            **details,
        )
        self.model.router.set_replicas((*self.model.router.members, info))

    def bill(self, tenant: str) -> Bill:
        """What the gateway's metrics say of a tenant."""
        metrics = self.gateway.metrics
        prompt, cached, output, cost_usd = [
            float(counter.labels(tenant, self.model.name)._value.get())
            for counter in (
                metrics.prompt_tokens,
                metrics.cached_tokens,
                metrics.output_tokens,
                metrics.cost,
            )
        ]
        return Bill(int(prompt), int(cached), int(output), round(cost_usd, 9))

    def ended(self) -> int:
        """Requests that the gateway has settled."""
        samples = [s for m in self.gateway.metrics.requests.collect() for s in m.samples]
        return int(sum(s.value for s in samples if s.name.endswith("_total")))

    def gateway_left_over(self) -> dict[str, int]:
        """What the gateway has reserved, or holds in its queue; empty when all is over."""
        loads = [view.load for view in self.model.router.snapshot().replicas]
        queue = self.model.dispatcher.queue
        found = {
            "requests without an end": self.asked - self.ended(),
            "requests in the ledger": sum(load.requests for load in loads),
            "prefill tokens in the ledger": sum(load.prefill_tokens for load in loads),
            "decode tokens in the ledger": sum(load.decode_tokens for load in loads),
            "requests in the queue": len(queue) + queue.in_flight,
            "choices being generated": self.model.generating,
            "reservations": self.book.open_holds(),
        }
        return {what: count for what, count in found.items() if count}

    def left_over(self) -> dict[str, int]:
        """The same, and what runs in the replicas."""
        found = {}
        for host in self.hosts.values():
            found[f"streams at {host.name}"] = host.streams.in_flight
            found[f"streams in the engine of {host.name}"] = host.generator.running
        found["prompts kept for other engines"] = self.kept.held()
        return self.gateway_left_over() | {what: count for what, count in found.items() if count}

    async def idle(self, limit_s: float = 20.0) -> None:
        """Wait until nothing is left of any request, and the ledger has what the engines counted.

        Raises:
            AssertionError: it is not so after ``limit_s``.
        """
        try:
            await until(lambda: not self.left_over(), limit_s)
        except TimeoutError:
            raise AssertionError(f"left over: {self.left_over()}") from None
        with suppress(TimeoutError):
            # A replica that was cut off tells what it has counted to who connects next.
            await until(lambda: not self.wrong_in_ledger(), 20.0)
        wrong = self.wrong_in_ledger()
        assert not wrong, wrong

    def wrong_in_ledger(self) -> str:
        """What of the ledger contradicts the engines, or the bill; empty where nothing does."""
        meters = {name: host.meter for name, host in self.hosts.items()}
        connected = self.model.fleet.connected
        silent = {n for n in self.cut_off if n not in connected or not self.hosts[n].survived}
        wrong = self.ledger.wrong(meters, silent)
        for tenant in {record.tenant for record in self.ledger.records}:
            bill, (sums, nano_usd) = self.bill(tenant), self.ledger.billed(tenant)
            if sums != (bill.prompt_tokens, bill.cached_tokens, bill.output_tokens):
                wrong = wrong or f"{tenant}: the ledger has {sums}, the bill {bill}"
            if abs(nano_usd / 1e9 - bill.cost_usd) > 1e-9:
                wrong = wrong or f"{tenant}: the ledger has {nano_usd}, the bill {bill}"
        return wrong


async def until(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    """Wait for it.

    Raises:
        TimeoutError: it is not so after ``limit_s``.
    """
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.002)


async def no_page(scope: Any, receive: Any, send: Any) -> None:
    """Pages and probes, of which there are none."""
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
