"""A model replica: Ray's LLM server, with a listener of its own for the token bytes.

Ray Serve places, heals, scales and upgrades it; the engine, its placement group and LoRA loading
come from ``ray.serve.llm``. Requests do not come through Serve handles (each token would cross as
a pickled object): gateways connect to the listener, whose address is the replica's metadata.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import time
from typing import Any

import msgspec
import ray
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer

from deployments import profiling, role_page, wire
from deployments.adapters import AdapterSlots
from deployments.engine import REGISTRY, WeirEngine
from deployments.interruption import refuse_if_interrupted, watch_notices
from deployments.kv_feed import EventFeed, free_ports, open_feed
from deployments.listener import App, Listener, ReplicaApp
from deployments.media import forbid_redirects
from deployments.pairs import SCORE, scores_pairs
from deployments.pools import Membership
from deployments.probes import Probes, refuse_if_frozen
from deployments.replica_card import engine_card, usage_meter
from deployments.role_page import RolePage
from deployments.served import process_began_s
from deployments.streams import TokenStreams
from deployments.unbooked import leaving_in
from deployments.vllm_generator import VllmGenerator
from router.hashing import DEFAULT_SEED
from weir.adapters import locate_adapter
from weir.logs import configure_logging
from weir.settings.ledger import FOLDER_VARIABLE
from weir.settings.tree import LogSettings

_LOG = logging.getLogger("weir.replica")


class ModelReplica(LLMServer):  # type: ignore[misc]
    """One engine. ``drain_timeout_s`` bounds how long a stop waits for streams in flight."""

    async def __init__(  # type: ignore[misc]  # Ray awaits constructors
        self,
        llm_config: LLMConfig,
        drain_timeout_s: float,
        log: LogSettings,
        membership: Membership | None = None,
    ) -> None:
        started = time.monotonic()
        configure_logging(log)
        host = ray.util.get_node_ip_address()
        self._membership = membership or Membership()
        self._feed = _publish_kv_events(llm_config, host)
        forbid_redirects()
        if "kv_transfer_config" in llm_config.engine_kwargs:
            _open_side_channel(host)
        await super().__init__(llm_config, engine_cls=WeirEngine)
        engine_seconds = time.monotonic() - started
        work, accelerator = self.engine.recorder.work, llm_config.accelerator_type
        self._usage = await usage_meter(work, self.engine.client.vllm_config, accelerator)
        client = self.engine.client
        self._drain_timeout_s = drain_timeout_s
        roles = self._membership.roles()
        leave = leaving_in(os.environ.get(FOLDER_VARIABLE))
        self._streams = TokenStreams(self._generator(), roles, leave)
        token = os.environ.get("WEIR_INTERNAL_TOKEN", "")
        pages: dict[str, App] = {
            profiling.PATH: profiling.Profiler(client),
            role_page.PATH: RolePage(roles),
        }
        app = ReplicaApp(Probes(client), self._streams, token, pages)
        self._listener = Listener(app, host)
        await self._listener.start()
        telling = self._streams.tell_load_forever()
        self._load_task = asyncio.get_running_loop().create_task(telling)
        self._notices = watch_notices(self._membership, self._streams)
        await self._first_token()
        _LOG.info(
            "replica ready",
            extra={
                "address": self._listener.address,
                "engine_seconds": round(engine_seconds, 2),
                "ready_seconds": round(time.monotonic() - started, 2),
            },
        )

    async def _start_engine(self) -> None:
        # Ray's own would also start a telemetry actor, which imports vLLM: 0.4 GB and seconds.
        await self.engine.start()
        from vllm.envs import enable_envs_cache

        # vLLM asks the environment for its settings with every output, unless it is told that they
        # are final: a twentieth of what the replica's front end does.
        enable_envs_cache()

    async def record_replica_metadata(self) -> dict[str, Any]:
        """Published once, when the replica is ready: where it listens and what it can hold."""
        config = self.engine.client.vllm_config
        blocks = config.cache_config.num_gpu_blocks or 0
        feed = self._feed if config.cache_config.enable_prefix_caching else None
        card = engine_card(config)
        return {
            "address": self._listener.address,
            "block_size": config.cache_config.block_size,
            # One block, which nothing is ever put into, is what an engine without a cache has.
            "kv_blocks_total": blocks if blocks > 1 else 0,
            "max_model_len": config.model_config.max_model_len,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "yielding_step_tokens": (
                config.scheduler_config.max_num_batched_tokens if self.engine.yields else 0
            ),
            **({"attention_tokens": card.attention_tokens} if card else {}),
            "tasks": await self._tasks(),
            "started_s": process_began_s(),
            **self._membership.metadata(),
            "kv_feed": feed
            and {
                "events": feed.events,
                "replay": feed.replay,
                "algorithm": config.cache_config.prefix_caching_hash_algo,
                "seed": os.environ.get("PYTHONHASHSEED", DEFAULT_SEED),
            },
        }

    async def _tasks(self) -> list[str]:
        client = self.engine.client
        tasks = list(await client.get_supported_tasks())
        return [*tasks, SCORE] if scores_pairs(client.model_config, tasks) else tasks

    async def record_routing_stats(self) -> dict[str, Any]:
        """Published periodically: the engine's load, for routers without a connection."""
        load = self._load()
        return {
            "running": load.running,
            "waiting": load.waiting,
            "kv_blocks_used": load.kv_blocks_used,
        }

    async def check_health(self) -> None:
        """The engine's, also of one that is there and does nothing, and
        :func:`deployments.interruption.refuse_if_interrupted`."""
        if hasattr(self, "_streams"):
            refuse_if_interrupted(self._streams)
            await refuse_if_frozen(self.engine.client)
        await super().check_health()

    async def __del__(self) -> None:
        """Serve calls this to stop the replica, after routers were told: gateways move its streams
        to other replicas, or they end first."""
        if hasattr(self, "_load_task"):
            await self._streams.drain(self._drain_timeout_s)
            self._load_task.cancel()
            if self._notices is not None:
                self._notices.cancel()
            await self._listener.stop()
            await self._streams.close()
        await super().__del__()
        if engine := getattr(self, "engine", None):
            engine.stop()
        if feed := getattr(self, "_feed", None):
            feed.close()

    async def _first_token(self) -> None:
        # The first step compiles and allocates; better before than in a client's request.
        from vllm import PoolingParams, SamplingParams
        from vllm.inputs.engine import tokens_input

        client = self.engine.client
        tasks = await client.get_supported_tasks()
        if "generate" in tasks:
            params = SamplingParams(max_tokens=2, min_tokens=2)
            outputs = client.generate(tokens_input([0]), params, "weir-warm-up")
        else:
            reads = PoolingParams(task=client.model_config.get_pooling_task(tasks))
            outputs = client.encode(tokens_input([0]), reads, "weir-warm-up")
        async for _ in outputs:
            pass
        await client.reset_prefix_cache()

    def _generator(self) -> VllmGenerator:
        engine = self.engine
        return VllmGenerator(
            engine.client,
            self._load,
            chats=engine.chat_format(),
            slots=self._adapter_slots(),
            resumes=engine.resumes,
        )

    def _adapter_slots(self) -> AdapterSlots | None:
        """None for an engine without adapters. See :mod:`deployments.adapters` for the one slot."""
        client = self.engine.client
        lora = client.vllm_config.lora_config
        if lora is None:
            return None
        url = self._llm_config.experimental_configs.get(REGISTRY)
        return AdapterSlots(client, lora.max_loras - 1, lambda source: locate_adapter(source, url))

    def _load(self) -> wire.Load:
        load: wire.Load = self.engine.recorder.load
        if self._usage is None:
            return load
        mfu, mbu = self._usage.read(asyncio.get_running_loop().time())
        return msgspec.structs.replace(load, mfu=mfu, mbu=mbu)


def _publish_kv_events(llm_config: LLMConfig, host: str) -> EventFeed | None:
    """Have the engine publish its KV events, unless settings say otherwise."""
    arguments = llm_config.engine_kwargs
    if "kv_events_config" in arguments or not arguments.get("enable_prefix_caching", True):
        return None
    feed = open_feed(host)
    arguments["kv_events_config"] = feed.engine_argument()
    # Ray made the engine's own copy of the arguments when the deployment was described, and sent it
    # along: without this the engine would never hear of the events that it is to publish.
    llm_config._engine_config = None
    return feed


def _open_side_channel(host: str) -> None:
    """Where engines ask each other for what a transfer of KV blocks needs to know: an address of
    this replica's own, unless settings say otherwise. What only this machine may reach stays on its
    loopback interface, the transfers too."""
    os.environ.setdefault("VLLM_NIXL_SIDE_CHANNEL_HOST", host)
    os.environ.setdefault("VLLM_NIXL_SIDE_CHANNEL_PORT", str(free_ports(host, 1)[0]))
    if ipaddress.ip_address(host).is_loopback:
        os.environ.setdefault("UCX_NET_DEVICES", "lo")
