"""Replicas with vLLM's engines, and what befalls them. Imported in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.executor.abstract import Executor

from deployments import wire
from deployments.chats import ChatFormat
from deployments.engine import EngineChild, LoadRecorder
from deployments.listener import Listener, ReplicaApp
from deployments.resuming import let_resume, prepare_workers
from deployments.streams import TokenStreams
from deployments.testing.world import TOKEN
from deployments.vllm_generator import VllmGenerator
from deployments.yielding import let_yield
from load_tests.pdfaults.watching import WatchedGenerator
from router.types import ReplicaInfo, Role

HOST = "127.0.0.1"
CONTEXT_TOKENS = 2048
BLOCK_TOKENS = 32
_LOOK_S = 0.25


class RealReplica:
    """An engine in a process of its own, and its front end in this one: frozen and killed together,
    as the processes of a replica are."""

    name: str
    role: Role

    async def start(
        self, name: str, role: Role, model: str, transfer: Mapping[str, Any] | None
    ) -> RealReplica:
        """Start it; ``transfer`` is vLLM's ``kv_transfer_config``."""
        self.name, self.role = name, role
        os.environ["VLLM_NIXL_SIDE_CHANNEL_PORT"] = str(_free_port())
        config = await asyncio.to_thread(_config, model, transfer)
        let_yield(config)
        let_resume(config)
        self.frozen = False
        self.dead = False
        self.crashed = False
        self._loop = asyncio.get_running_loop()
        self._child = EngineChild(config, self._ended)
        await asyncio.to_thread(self._child.start)
        recorders: list[LoadRecorder] = []

        def record(config: Any, index: int) -> LoadRecorder:
            recorders.append(LoadRecorder(config.cache_config.num_gpu_blocks or 0))
            return recorders[-1]

        self._client = AsyncLLM(
            config,
            Executor.get_class(config),
            log_stats=True,
            log_requests=False,
            stat_loggers=[record],
            client_addresses=self._child.client_addresses(),
        )
        await prepare_workers(self._client)
        self._recorder = recorders[0]
        self.blocks = config.cache_config.num_gpu_blocks or 0
        self._generator = VllmGenerator(
            self._client,
            lambda: self._recorder.load,
            resumes=True,
            chats=ChatFormat(self._client, tool_parser="hermes"),
        )
        await self._listen()
        return self

    async def _listen(self) -> None:
        self.watched = WatchedGenerator(self._generator)
        streams = TokenStreams(self.watched)
        self._running = asyncio.Event()
        self._running.set()
        app = ReplicaApp(_no_page, streams, TOKEN)

        async def stoppable(scope: Any, receive: Any, send: Any) -> None:
            async def receive_running() -> Any:
                event = await receive()
                await self._running.wait()
                return event

            async def send_running(event: Any) -> None:
                await self._running.wait()
                await send(event)

            await app(scope, receive_running, send_running)

        self._listener = Listener(stoppable, HOST)
        await self._listener.start()
        self._telling = asyncio.get_running_loop().create_task(streams.tell_load_forever())

    @property
    def info(self) -> ReplicaInfo:
        """As Serve would announce it."""
        return ReplicaInfo(
            self.name,
            address=self._listener.address,
            kv_blocks_total=self.blocks,
            block_size=BLOCK_TOKENS,
            max_model_len=CONTEXT_TOKENS,
            tasks=frozenset({"generate"}),
            role=self.role,
        )

    # What befalls it.

    def _ended(self, code: int) -> None:
        """Its engine has ended by itself: so does the replica. Called in another thread."""
        self.crashed = True
        asyncio.run_coroutine_threadsafe(self.kill(), self._loop)

    async def kill(self) -> None:
        """SIGKILL."""
        self.dead = self.watched.dead = True
        self._child.stop()
        self._running.set()
        self._telling.cancel()
        await self._listener.stop()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen = True
        os.kill(self._child.pid, signal.SIGSTOP)
        self._running.clear()

    def thaw(self) -> None:
        """SIGCONT."""
        self.frozen = False
        os.kill(self._child.pid, signal.SIGCONT)
        self._running.set()

    # What its engine says.

    async def blocks_left(self, patience_s: float) -> int:
        """KV blocks that its engine has in use, when nothing runs and it has had that long."""
        clock = asyncio.get_running_loop().time
        give_up_s = clock() + patience_s
        while (used := await self._blocks_used()) and clock() < give_up_s:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        return used

    async def _blocks_used(self) -> int:
        # The gauge is written at the end of a step: make one.
        ended = asyncio.Event()
        request = wire.Submit(0, "look", [5], wire.Sampling(max_tokens=1))
        await self._generator.submit(request, lambda message: ended.set())
        async with asyncio.timeout(20.0):
            await ended.wait()
        await asyncio.sleep(0.05)
        return self._recorder.load.kv_blocks_used


def _config(model: str, transfer: Mapping[str, Any] | None) -> Any:
    return AsyncEngineArgs(
        model=model,
        dtype="float32",
        max_model_len=CONTEXT_TOKENS,
        block_size=BLOCK_TOKENS,
        max_num_seqs=64,
        kv_cache_memory_bytes=64 << 20,
        enforce_eager=True,
        enable_prefix_caching=True,
        scheduling_policy="priority",
        distributed_executor_backend="uni",
        kv_transfer_config=dict(transfer) if transfer else None,
    ).create_engine_config()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


async def _no_page(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})
