"""A replica without a model: keeps the rhythm of one, for measuring everything around it.

``engine.mode: stub`` puts it in a model's place. Every request gets its ``max_tokens`` words, one
every ``interval_ms`` (an engine argument), over the real replica protocol
(:mod:`deployments.stub_generator`).
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import ray

from deployments.interruption import refuse_if_interrupted, watch_notices
from deployments.listener import Listener, ReplicaApp, answer
from deployments.pools import Membership
from deployments.role_page import PATH, RolePage
from deployments.served import process_began_s
from deployments.streams import TokenStreams
from deployments.stub_generator import StubGenerator
from deployments.unbooked import leaving_in
from weir.logs import configure_logging
from weir.settings import ModelSettings
from weir.settings.ledger import FOLDER_VARIABLE
from weir.settings.tree import LogSettings

_DRAIN_S = 5.0


class StubReplica:
    """The Serve deployment; stands where :class:`~deployments.replica.ModelReplica` would."""

    async def __init__(  # type: ignore[misc]  # Serve awaits constructors
        self, model: ModelSettings, log: LogSettings, membership: Membership | None = None
    ) -> None:
        configure_logging(log)
        self._membership = membership or Membership()
        self._args: dict[str, Any] = model.engine.args
        roles = self._membership.roles()
        generator = StubGenerator(self._args.get("interval_ms", 5) / 1000)
        probes = _Probes(generator)
        leave = leaving_in(os.environ.get(FOLDER_VARIABLE))
        self._streams = TokenStreams(generator, roles, leave)
        token = os.environ.get("WEIR_INTERNAL_TOKEN", "")
        self._app = ReplicaApp(probes, self._streams, token, {PATH: RolePage(roles)})
        self._listener = Listener(self._app, ray.util.get_node_ip_address())
        await self._listener.start()
        telling = self._streams.tell_load_forever()
        self._load_task = asyncio.get_running_loop().create_task(telling)
        self._notices = watch_notices(self._membership, self._streams)

    async def record_replica_metadata(self) -> dict[str, Any]:
        """The same keys as a model replica's."""
        return {
            "address": self._listener.address,
            "block_size": 16,
            "kv_blocks_total": 0,
            "max_model_len": int(self._args.get("max_model_len", 2048)),
            "max_num_seqs": 1024,
            "tasks": ["generate", "embed"],
            "started_s": process_began_s(),
            **self._membership.metadata(),
        }

    async def check_health(self) -> None:
        """See :func:`deployments.interruption.refuse_if_interrupted`."""
        refuse_if_interrupted(self._streams)

    async def __del__(self) -> None:
        if self._notices is not None:
            self._notices.cancel()
        await self._streams.drain(_DRAIN_S)
        self._load_task.cancel()
        await self._listener.stop()
        await self._streams.close()


class _Probes:
    """``/health``, and ``/metrics`` with the counters that an engine would have."""

    def __init__(self, generator: StubGenerator) -> None:
        self._generator = generator

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        told = b""
        if scope["path"] == "/metrics":
            told = self._generator.counters.exposition()
        await answer(send, 200, told)
