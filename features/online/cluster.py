"""Reads from a Redis Cluster: one link per master, and the map from a key's slot to its link.

Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/. The map is asked
for in the background: at the start, at intervals, when a node is lost, and when a node answers that
a slot has moved. A request never waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Final

from redis.crc import key_slot

from features.online.address import ClusterAddress
from features.online.connection import StoreFailedError
from features.online.discovery import N_SLOTS, SlotRange, cluster_map
from features.online.link import Patience, StoreLink, StoreState

_LOG = logging.getLogger("weir.features")
_REFRESH_S: Final = 30.0
_MAX_NODES: Final = 1_000

Node = tuple[str, int]


class ClusterLink:
    """The links of a cluster. A node that is lost makes only its own slots unreachable."""

    def __init__(
        self,
        address: ClusterAddress,
        patience: Patience | None = None,
        rng: random.Random | None = None,
        on_change: Callable[[StoreState], None] = lambda state: None,
        name: str = "feature store",
    ) -> None:
        self._address = address
        self._name = name
        self._patience = patience or Patience()
        self._rng = rng or random.Random()
        self._on_change = on_change
        self._links: dict[Node, StoreLink] = {}
        self._nowhere = StoreLink(address.server, self._patience, self._rng, name=name)
        self._slots: list[StoreLink] = [self._nowhere] * N_SLOTS
        self._stale = asyncio.Event()
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.state: StoreState = "connecting"

    def start(self) -> None:
        """Begin to ask for the map and to connect."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_mapped())

    async def close(self) -> None:
        """Stop for good."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        links, self._links = list(self._links.values()), {}
        for link in links:
            await link.close()

    async def wait_until_up(self) -> None:
        """For tests and tools: every slot has a node that answers."""
        await self._up.wait()

    def route(self, key: bytes) -> StoreLink:
        """The link to the node that has the key; one that refuses, as long as no node is known."""
        return self._slots[key_slot(key)]

    def moved(self, reply: str) -> StoreLink | None:
        """The link to the node that ``MOVED`` or ``ASK`` names; None if the reply is neither, or
        the node is not known yet. A ``MOVED`` has the whole map asked for again."""
        kind, _, rest = reply.partition(" ")
        if kind not in ("MOVED", "ASK"):
            return None
        if kind == "MOVED":
            self._stale.set()
        host, _, port = rest.partition(" ")[2].rpartition(":")
        return self._links.get((host, int(port))) if port.isdigit() else None

    async def _keep_mapped(self) -> None:
        pause_s = self._patience.backoff_min_s
        while True:
            self._stale.clear()
            try:
                known = tuple(self._links)
                slots = await cluster_map(self._address, known, self._patience.connect_timeout_s)
            except StoreFailedError as error:
                if self.state != "down":
                    _LOG.warning("%s: %s", self._name, error)
                self._tell("down")
            else:
                await self._adopt(slots)
                pause_s = self._patience.backoff_min_s
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_REFRESH_S):
                        await self._stale.wait()
            # Between two requests for the map there is always a pause, whatever the nodes answer.
            await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, self._patience.backoff_max_s)

    async def _adopt(self, ranges: list[SlotRange]) -> None:
        nodes = {each.node for each in ranges}
        if len(nodes) > _MAX_NODES:
            _LOG.warning("%s: a cluster of %d nodes is not believed", self._name, len(nodes))
            return
        for node in nodes - set(self._links):
            self._links[node] = self._new_link(node)
            self._links[node].start()
        slots = [self._nowhere] * N_SLOTS
        for each in ranges:
            count = each.last - each.first + 1
            slots[each.first : each.last + 1] = [self._links[each.node]] * count
        self._slots = slots
        for node in set(self._links) - nodes:
            await self._links.pop(node).close()
        self._look()

    def _new_link(self, node: Node) -> StoreLink:
        def on_change(state: StoreState) -> None:
            if state == "down":
                self._stale.set()
            self._look()

        node_address = self._address.node(*node)
        return StoreLink(node_address, self._patience, self._rng, on_change, name=self._name)

    def _look(self) -> None:
        whole = self._nowhere not in self._slots
        states = {link.state for link in self._links.values()}
        if whole and states == {"up"}:
            self._up.set()
            self._tell("up")
        elif "down" in states or not whole:
            self._up.clear()
            self._tell("down")

    def _tell(self, state: StoreState) -> None:
        if state != self.state:
            self.state = state
            self._on_change(state)
