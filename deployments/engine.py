"""vLLM's engine inside a replica, with the engine core in a thread where settings say so.

Thread mode exists for machines without a GPU: no second process to start (6 to 7 s of imports),
no second copy of its memory. It reaches into vLLM's engine-core classes, which carry no promise;
``tests/deployments/test_engine.py`` fails loudly when an upgrade moves them.
"""

from __future__ import annotations

import copy
import ctypes
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.core import EngineCoreProc
from vllm.v1.engine.utils import EngineZmqAddresses
from vllm.v1.executor.abstract import Executor
from vllm.v1.metrics.loggers import StatLoggerBase

from deployments import wire

THREAD_CORE = "weir_thread_core"
_PR_SET_NAME = 15


class _ThreadCore(EngineCoreProc):  # type: ignore[misc]
    """An engine core that is told its addresses instead of shaking hands for them."""

    def __init__(self, config: Any, executor: Any, addresses: EngineZmqAddresses) -> None:
        self._given_addresses = addresses
        super().__init__(config, True, "", executor, True)

    @contextmanager
    def _perform_handshakes(self, *_: Any, **__: Any) -> Iterator[EngineZmqAddresses]:
        yield self._given_addresses


class EngineThread:
    """Runs one engine core in a daemon thread. ``addresses`` is where its client listens."""

    def __init__(self, config: Any) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="weir-engine-")
        root = Path(self._folder.name)
        self.addresses = EngineZmqAddresses(
            inputs=[f"ipc://{root / 'in'}"], outputs=[f"ipc://{root / 'out'}"]
        )
        # The client's copy of the config is filled from the ready message, as between processes.
        self._config = copy.deepcopy(config)
        self._built = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine-core", daemon=True)

    def start(self) -> None:
        """Build the core (loads weights, lays out the KV cache); raises what building raised."""
        self._thread.start()
        self._built.wait()
        if self._failure is not None:
            raise self._failure

    def client_addresses(self) -> dict[str, str]:
        """What AsyncLLM calls ``client_addresses``."""
        return {
            "input_address": self.addresses.inputs[0],
            "output_address": self.addresses.outputs[0],
        }

    def _run(self) -> None:
        # Named for the kernel too, so that CPU accounting can tell engine and front end apart.
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_NAME, b"engine-core")
        try:
            core = _ThreadCore(self._config, Executor.get_class(self._config), self.addresses)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._failure = error
            self._built.set()
            return
        self._built.set()
        try:
            core.run_busy_loop()
        except SystemExit:
            pass
        except BaseException:
            core._send_engine_dead()
            raise
        finally:
            core.shutdown()


class LoadRecorder(StatLoggerBase):  # type: ignore[misc]
    """Keeps the scheduler's last word on its load; vLLM calls it after each step."""

    def __init__(self, kv_blocks_total: int) -> None:
        self._kv_blocks_total = kv_blocks_total
        self.load = wire.Load(0, 0, 0)

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """``scheduler_stats`` is None when a step reported none."""
        if scheduler_stats is not None:
            self.load = wire.Load(
                scheduler_stats.num_running_reqs,
                scheduler_stats.num_waiting_reqs,
                round(scheduler_stats.kv_cache_usage * self._kv_blocks_total),
            )

    def log_engine_initialized(self) -> None:
        """Nothing to say."""


class WeirEngine(VLLMEngine):  # type: ignore[misc]
    """Ray's vLLM engine, with weir's load recorder and, if asked for, the core in a thread."""

    recorder: LoadRecorder

    async def start(self) -> None:
        """Start the engine where it is: Ray's step before, a task on every node that downloads
        the model, imports vLLM once more (6 s) and has nothing to do; vLLM fetches for itself."""
        self.llm_config.get_or_create_callback().ctx.run_init_node = False
        await super().start()

    @property
    def client(self) -> AsyncLLM:
        """vLLM's engine client, started."""
        return self._engine_client

    def _start_async_llm_engine(
        self, vllm_engine_args: Any, vllm_engine_config: Any, placement_group: Any
    ) -> AsyncLLM:
        vllm_engine_config.parallel_config.placement_group = placement_group
        addresses = None
        if self.llm_config.experimental_configs.get(THREAD_CORE, False):
            # Ray sets "mp" for every CPU model; one process is the point here.
            vllm_engine_config.parallel_config.distributed_executor_backend = "uni"
            thread = EngineThread(vllm_engine_config)
            thread.start()
            addresses = thread.client_addresses()
        return AsyncLLM(
            vllm_config=vllm_engine_config,
            executor_class=Executor.get_class(vllm_engine_config),
            log_requests=False,
            log_stats=True,
            stat_loggers=[self._record_load],
            client_addresses=addresses,
        )

    def _record_load(self, config: Any, engine_index: int) -> LoadRecorder:
        self.recorder = LoadRecorder(config.cache_config.num_gpu_blocks or 0)
        return self.recorder
