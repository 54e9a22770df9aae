"""vLLM's engine inside a replica, with the engine core in a forked child where settings say so.

A GPU's engine runs in vLLM's own processes. Without a GPU the replica forks its engine core: a
child that shares all imports and most memory with its parent (vLLM's spawned processes import
everything again, 6 s and 0.7 GB), and has an interpreter of its own. In a thread of the replica
the engine and the replica's front end would share one interpreter lock, which cost 13 % of the
throughput. It reaches into vLLM's engine-core classes, which carry no promise;
``tests/deployments/test_engine.py`` fails loudly when an upgrade moves them.
"""

from __future__ import annotations

import copy
import gc
import logging
import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from torch import distributed
from vllm.entrypoints.chat_utils import load_chat_template
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.core import EngineCoreProc
from vllm.v1.engine.utils import EngineZmqAddresses
from vllm.v1.executor.abstract import Executor
from vllm.v1.metrics.loggers import StatLoggerBase

from deployments import wire
from deployments.chats import ChatFormat
from deployments.child import end_with_parent, name_thread
from deployments.replica_card import work_counter
from deployments.resuming import let_resume, prepare_workers
from deployments.tiers.figures import TierFigures, tier_figures
from deployments.yielding import let_yield
from weir.cards.usage import Step, WorkCounter

FORKED_CORE = "weir_forked_core"
YIELDING = "weir_yielding"
#: The model registry's URL, where adapters may be.
REGISTRY = "weir_registry"
_LOG = logging.getLogger("weir.replica")


class EngineStartError(Exception):
    """The engine core could not be built; the message has its traceback."""


class _ForkedCore(EngineCoreProc):  # type: ignore[misc]
    """An engine core that is told its addresses instead of shaking hands for them."""

    def __init__(self, config: Any, executor: Any, addresses: EngineZmqAddresses) -> None:
        self._given_addresses = addresses
        super().__init__(config, True, "", executor, True)

    @contextmanager
    def _perform_handshakes(self, *_: Any, **__: Any) -> Iterator[EngineZmqAddresses]:
        yield self._given_addresses


class EngineChild:
    """One engine core in a forked child. ``addresses`` is where its client listens.

    ``died`` is called, in a thread, when the child ends without :meth:`stop`. The child does not
    outlive its parent.
    """

    def __init__(self, config: Any, died: Callable[[int], None]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="weir-engine-")
        root = Path(self._folder.name)
        self.addresses = EngineZmqAddresses(
            inputs=[f"ipc://{root / 'in'}"], outputs=[f"ipc://{root / 'out'}"]
        )
        # The client's copy of the config is filled from the ready message, as between processes.
        self._config = copy.deepcopy(config)
        self._died = died
        self._stopping = False
        self._reaped = False
        self.pid = 0

    def start(self) -> None:
        """Fork, and wait until the core is built (weights loaded, KV cache laid out).

        Raises:
            EngineStartError: the core could not be built, or the child died of it.
        """
        reader, writer = os.pipe()
        gc.collect()
        gc.freeze()  # a collection in either process would copy the pages that they share
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            _run_core(parent, self._config, self.addresses, writer)
        gc.unfreeze()
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read()
        if not said or (failure := pickle.loads(said)) is not None:
            os.waitpid(self.pid, 0)
            self._reaped = True
            raise EngineStartError(failure if said else "the engine's process died at its start")
        threading.Thread(target=self._watch, name="engine-watch", daemon=True).start()

    def client_addresses(self) -> dict[str, str]:
        """What AsyncLLM calls ``client_addresses``."""
        return {
            "input_address": self.addresses.inputs[0],
            "output_address": self.addresses.outputs[0],
        }

    def stop(self) -> None:
        """End the child, if it has not ended; what it was generating is lost."""
        self._stopping = True
        if not self._reaped:  # afterwards its number may be another process's
            os.kill(self.pid, signal.SIGKILL)

    def _watch(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self._reaped = True
        if not self._stopping:
            self._died(os.waitstatus_to_exitcode(status))


def _run_core(parent: int, config: Any, addresses: EngineZmqAddresses, writer: int) -> NoReturn:
    """The child's whole life. Closes ``writer`` once the core is built or has failed to be."""
    code = 1
    try:
        end_with_parent(parent, signal.SIGKILL)
        # Its command line stays the replica's: Ray's worker has written over the place.
        name_thread(b"engine-core")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        _share_group()
        try:
            core = _ForkedCore(config, Executor.get_class(config), addresses)
        except BaseException:  # noqa: BLE001 - told to the parent, which raises it
            os.write(writer, pickle.dumps(traceback.format_exc()))
            os._exit(1)
        os.write(writer, pickle.dumps(None))
        os.close(writer)
        try:
            core.run_busy_loop()
        except SystemExit:
            code = 0
        except BaseException:
            core._send_engine_dead()
            raise
    except BaseException:  # noqa: BLE001 - the process's edge
        traceback.print_exc()
    finally:
        # Nothing of the parent's may run here: no exit handlers, no buffers written twice.
        os._exit(code)


def _share_group() -> None:
    """vLLM makes two process groups for each kind of parallelism. Each would have a Gloo device of
    its own, whose thread wakes a hundred times a second: 13 of them took 1.2 % of a core. The child
    is alone in all groups, so they are the one that holds the whole world. Only in the child."""
    distributed.new_group = lambda *_, **__: distributed.group.WORLD


class LoadRecorder(StatLoggerBase):  # type: ignore[misc]
    """Keeps the scheduler's last word on its load, and counts its steps: vLLM calls it after each
    one, so the count stands still while the engine hangs. ``work`` counts what the steps did,
    ``tiers`` is told what is kept outside the device."""

    def __init__(
        self,
        kv_blocks_total: int,
        work: WorkCounter | None = None,
        tiers: TierFigures | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kv_blocks_total = kv_blocks_total
        self._tiers = tiers
        self.work = work
        self.load = wire.Load(0, 0, 0)
        self._clock = clock
        self._stepped_s: float | None = None

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """``scheduler_stats`` is None when a step reported none."""
        if scheduler_stats is not None:
            tiers = self._tiers
            if tiers is not None and (told := scheduler_stats.kv_connector_stats):
                tiers.add(told)
            computed, generated = _tokens(iteration_stats)
            before = self.load
            self.load = wire.Load(
                scheduler_stats.num_running_reqs,
                scheduler_stats.num_waiting_reqs,
                round(scheduler_stats.kv_cache_usage * self._kv_blocks_total),
                steps=before.steps + 1,
                tiers=tiers.use if tiers is not None else None,
                busy_s=before.busy_s + self._took_s(before),
                prefill_tokens=before.prefill_tokens + computed,
                decode_tokens=before.decode_tokens + generated,
            )
            if self.work is not None:
                _count(self.work, scheduler_stats, iteration_stats)

    def _took_s(self, before: wire.Load) -> float:
        """How long the step took that has just ended: since the one before it, if there was work
        then. The first step after a rest is not counted: nobody here knows when it began."""
        now_s = self._clock()
        last_s, self._stepped_s = self._stepped_s, now_s
        return now_s - last_s if last_s is not None and before.running + before.waiting else 0.0

    def log_engine_initialized(self) -> None:
        """Nothing to say."""


def _tokens(step: Any) -> tuple[int, int]:
    """What a step computed of prompts, and what it generated beside their first tokens."""
    if step is None:
        return 0, 0
    first = len(step.time_to_first_tokens_iter)
    return step.prompt_token_stats.computed, max(0, step.num_generation_tokens - first)


def _count(work: WorkCounter, scheduler: Any, step: Any) -> None:
    """Count a step's work: as the engine tells it (``enable_mfu_metrics``), or from its tokens."""
    if (told := scheduler.perf_stats) is not None:
        moved = told.num_read_bytes_per_gpu + told.num_write_bytes_per_gpu
        work.add(told.num_flops_per_gpu, moved)
    elif step is not None:
        prompts = step.prompt_token_stats
        prefills, generated = len(step.time_to_first_tokens_iter), step.num_generation_tokens
        use = scheduler.kv_cache_usage
        work.add_step(Step(prefills, prompts.computed, prompts.cached_tokens, generated, use))


class WeirEngine(VLLMEngine):  # type: ignore[misc]
    """Ray's vLLM engine, with weir's load recorder and scheduler and, if asked for, the core in a
    child. ``yields``: prompts give way to more urgent ones between two steps. ``resumes``: streams
    that another replica began can go on here."""

    recorder: LoadRecorder
    yields = False
    resumes = False
    _child: EngineChild | None = None

    async def start(self) -> None:
        """Start the engine where it is: Ray's step before, a task on every node that downloads
        the model, imports vLLM once more (6 s) and has nothing to do; vLLM fetches for itself."""
        self.llm_config.get_or_create_callback().ctx.run_init_node = False
        await super().start()
        if self.resumes:
            await prepare_workers(self.client)

    def chat_format(self) -> ChatFormat:
        """How the model writes tool calls and reasoning, by the engine's arguments."""
        args = self._vllm_args
        tool_parser = args.tool_call_parser if args.enable_auto_tool_choice else None
        if tool_parser is None:
            _LOG.info("no tool_call_parser in engine.args: most models then refuse tools")
        return ChatFormat(
            self.client,
            tool_parser=tool_parser,
            reasoning_parser=self.client.vllm_config.structured_outputs_config.reasoning_parser,
            chat_template=load_chat_template(args.chat_template),
            content_format=args.chat_template_content_format,
            template_kwargs=args.default_chat_template_kwargs,
        )

    @property
    def client(self) -> AsyncLLM:
        """vLLM's engine client, started."""
        return self._engine_client

    def _start_async_llm_engine(
        self, vllm_engine_args: Any, vllm_engine_config: Any, placement_group: Any
    ) -> AsyncLLM:
        vllm_engine_config.parallel_config.placement_group = placement_group
        if self.llm_config.experimental_configs.get(YIELDING, False):
            self.yields = let_yield(vllm_engine_config)
        self.resumes = let_resume(vllm_engine_config)
        addresses = None
        if self.llm_config.experimental_configs.get(FORKED_CORE, False):
            # Ray sets "mp" for every CPU model: one more process, which would import vLLM again.
            vllm_engine_config.parallel_config.distributed_executor_backend = "uni"
            self._child = EngineChild(vllm_engine_config, _end_with_engine)
            self._child.start()
            addresses = self._child.client_addresses()
        return AsyncLLM(
            vllm_config=vllm_engine_config,
            executor_class=Executor.get_class(vllm_engine_config),
            log_requests=False,
            log_stats=True,
            stat_loggers=[self._record_load],
            client_addresses=addresses,
        )

    def stop(self) -> None:
        """End the engine core, where it is a child of this process."""
        if self._child is not None:
            self._child.stop()

    def _record_load(self, config: Any, engine_index: int) -> LoadRecorder:
        blocks = config.cache_config.num_gpu_blocks or 0
        self.recorder = LoadRecorder(blocks, work_counter(config), tier_figures(config))
        return self.recorder


def _end_with_engine(code: int) -> None:
    """A replica without its engine is of no use: Serve starts another, gateways see it at once."""
    _LOG.critical("the engine died", extra={"exit_code": code})
    os._exit(1)
