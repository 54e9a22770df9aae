"""A replica's slots for LoRA adapters: who is in one, who waits for one, who gives way.

vLLM keeps adapters in slots of its own and reads the index -1, a request without an adapter, as the
*last* slot on the CPU: a base request batched with adapters' requests is then answered with the
weights of whoever sits there. So the engine has one slot more than is ever used
(:func:`engine_arguments`), and it is this class that sees to that: an adapter is unloaded before
another one takes its place, instead of leaving both to vLLM. vLLM takes the lowest free slot, so
with at most ``slots`` adapters loaded the last one stays as it was made: zeros.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from vllm.exceptions import VLLMClientError
from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError

from deployments import wire
from weir.adapters import AdapterFiles, largest_rank, locate_adapter
from weir.errors import ConfigError, NotFoundError, WeirError

_LOG = logging.getLogger("weir.replica")
#: How much the last load counts in the smoothed time of a load.
_SMOOTHING = 0.3


class AdapterBusyError(WeirError):
    """Every slot is in use, and the request does not want to wait."""

    status = wire.ADAPTER_BUSY
    type = "overloaded_error"
    code = "adapter_busy"


class AdapterClient(Protocol):
    """The part of vLLM's engine client that is needed here."""

    async def add_lora(self, lora_request: LoRARequest) -> bool: ...

    async def remove_lora(self, lora_id: int) -> bool: ...


def engine_arguments(files: list[AdapterFiles], slots: int) -> dict[str, Any]:
    """vLLM's arguments for adapters; none for a model that has no adapter. See the module for the
    slot that is never used."""
    if not files:
        return {}
    return {"enable_lora": True, "max_loras": slots + 1, "max_lora_rank": largest_rank(files)}


class AdapterSlots:
    """Needs a running event loop, whose clock times the loads.

    ``locate`` finds an adapter's folder from its source (it may read files: it runs in a thread).
    """

    def __init__(
        self,
        client: AdapterClient,
        slots: int,
        locate: Callable[[str], Path] = locate_adapter,
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots must be positive, not {slots}")
        self._client = client
        self._slots = slots
        self._locate = locate
        self._clock = asyncio.get_running_loop().time
        self._numbers: dict[str, int] = {}
        self._held: dict[str, LoRARequest] = {}  # loaded, the least recently used first
        self._uses: dict[str, int] = {}
        self._changing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._load_s = 0.0
        self.loads = 0

    def told(self) -> wire.Adapters:
        """What gateways are told."""
        busy = [key for key in self._held if self._uses.get(key)]
        return wire.Adapters(list(self._held), busy, self._slots, self._load_s, self.loads)

    async def hold(self, adapter: wire.Adapter) -> LoRARequest:
        """The adapter, loaded and in use until :meth:`release`.

        Raises:
            AdapterBusyError: all slots are in use, and ``adapter.wait`` is False.
            NotFoundError: its files are not there, or the engine cannot load them.
        """
        while True:
            if adapter.key in self._held:
                return self._use(adapter.key)
            if self._is_full():
                if not adapter.wait:
                    raise AdapterBusyError("All adapter slots of the replica are in use.")
                await self._changed.wait()
                continue
            async with self._changing:
                if adapter.key not in self._held and not self._is_full():
                    await self._load(adapter)

    def release(self, key: str) -> None:
        """One request less uses it."""
        self._uses[key] -= 1
        if not self._uses[key]:
            del self._uses[key]
            self._wake()

    def _use(self, key: str) -> LoRARequest:
        lora = self._held.pop(key)
        self._held[key] = lora
        self._uses[key] = self._uses.get(key, 0) + 1
        return lora

    def _is_full(self) -> bool:
        return len(self._held) >= self._slots and all(key in self._uses for key in self._held)

    def _wake(self) -> None:
        """Whoever waits looks again, in the order of waiting."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _load(self, adapter: wire.Adapter) -> None:
        """Into a free slot, or the one of the least recently used adapter that nobody uses."""
        if len(self._held) >= self._slots:
            oldest = next(key for key in self._held if key not in self._uses)
            gone = self._held.pop(oldest)
            await self._client.remove_lora(gone.lora_int_id)
        begun_s = self._clock()
        try:
            folder = await asyncio.to_thread(self._locate, adapter.source)
            number = self._numbers.setdefault(adapter.key, len(self._numbers) + 1)
            lora = LoRARequest(adapter.key, number, str(folder))
            await self._client.add_lora(lora)
        except EngineDeadError:
            raise
        except (ConfigError, ValueError, OSError, RuntimeError, VLLMClientError) as error:
            self._wake()  # its slot is free
            _LOG.error("an adapter cannot be loaded", extra={"reason": str(error)})
            raise NotFoundError(f"The adapter {adapter.key!r} cannot be loaded.") from error
        took_s = self._clock() - begun_s
        self._load_s += (took_s - self._load_s) * (_SMOOTHING if self.loads else 1.0)
        self.loads += 1
        self._held[adapter.key] = lora
        self._wake()  # who waits may want the same
