"""vLLM's NIXL connector with bounds in time: what never comes is given up, what is stale not read.

vLLM's waits for a transfer for as long as it takes. Where the other engine's process stands still,
that is for ever, and the KV blocks that were to be filled stay allocated: also when their request
is long gone, because a late write into blocks that have been given to another request would spoil
its answer. Here the connection to an engine that has not delivered within ``transfer_patience_s``
is closed first, so that nothing of it can arrive any more; then the blocks are free, and the
engine is connected to anew when it has something again.

The engine that computed a prompt keeps its blocks for a lease, which the other one renews. Blocks
whose lease was not seen to be renewed in time may belong to another prompt by now, so they are not
read: the prompt is computed again. (vLLM issue 21570 describes answers from such blocks.)

``tests/deployments/test_patient_nixl.py`` and ``weir bench pdfaults`` run it in real engines; what
it overrides carries no promise.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.connector import (
    NixlBaseConnector,
    NixlPullConnector,
)
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.pull_scheduler import (
    NixlPullConnectorScheduler,
)
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.pull_worker import NixlPullConnectorWorker

_LOG = logging.getLogger("weir.replica")
#: The gateway has placed the request again by then (:data:`deployments.gateway.handoff.HANDOFF_S`).
PATIENCE_S = 30.0
#: In ``kv_connector_extra_config``.
PATIENCE = "transfer_patience_s"
#: The part of a lease after which blocks are not believed in, unless it was renewed meanwhile.
#: Renewals are sent every sixth of it.
_FRESH = 0.5


class PatientWorker(NixlPullConnectorWorker):  # type: ignore[misc]
    """See the module's docstring."""

    def __init__(self, vllm_config: Any, engine_id: str, kv_cache_config: Any) -> None:
        extra = vllm_config.kv_transfer_config.get_from_extra_config
        self._patience_s = float(extra(PATIENCE, PATIENCE_S))
        self._fresh_s = _FRESH * float(extra("kv_lease_duration", 30))
        #: Local request → when it began to read.
        self._reading_s: dict[str, float] = {}
        #: Remote request → when it was first heard of, or its lease last renewed.
        self._renewed_s: dict[str, float] = {}
        super().__init__(vllm_config, engine_id, kv_cache_config)

    def start_load_kv(self, metadata: Any) -> None:
        """Begin transfers; see the base class."""
        now_s = time.perf_counter()
        for meta in metadata.reqs_to_recv.values():
            self._renewed_s.setdefault(meta.remote.request_id, now_s)
        super().start_load_kv(metadata)

    def get_finished(self) -> tuple[set[str], set[str]]:
        """Which transfers have ended, given up or not; see the base class."""
        if self._reading_s:
            self._give_up(time.perf_counter() - self._patience_s)
        sent, received = super().get_finished()
        for request_id in received:
            self._reading_s.pop(request_id, None)
        return sent, received

    def _read_blocks_for_req(self, req_id: str, meta: Any) -> None:
        now_s = time.perf_counter()
        if meta.remote.engine_id not in self._remote_agents:
            # Its connection was closed after this request had got through the handshake.
            self._handle_failed_transfer(req_id, None)
            return
        heard_s = self._renewed_s.pop(meta.remote.request_id, now_s)
        # An empty list of blocks only tells the other engine that they are not needed.
        if any(meta.local_block_ids) and now_s - heard_s > self._fresh_s:
            _LOG.warning("KV blocks are not read: their lease may be over")
            self._handle_failed_transfer(req_id, None)
            return
        self._reading_s[req_id] = now_s
        super()._read_blocks_for_req(req_id, meta)

    def _send_heartbeats(self, metadata: Any) -> None:
        super()._send_heartbeats(metadata)
        now_s = time.perf_counter()
        for engine_id, info in metadata.heartbeat_by_engine.items():
            told = engine_id in self._remote_agents
            for request_id in info.req_ids:
                if told:
                    self._renewed_s[request_id] = now_s
                else:
                    self._renewed_s.setdefault(request_id, now_s)
        if len(self._renewed_s) > 1024:  # of requests that were aborted before they were read
            oldest_s = now_s - 20.0 * self._fresh_s
            self._renewed_s = {r: at_s for r, at_s in self._renewed_s.items() if at_s > oldest_s}

    def _give_up(self, begun_before_s: float) -> None:
        """On all transfers from engines of which one has taken too long."""
        engines = {
            self._recving_metadata[request_id].remote.engine_id
            for request_id in self._recving_transfers
            if self._reading_s.get(request_id, begun_before_s) < begun_before_s
            and request_id in self._recving_metadata
        }
        for engine_id in engines:
            lost = [
                request_id
                for request_id in self._recving_transfers
                if self._recving_metadata[request_id].remote.engine_id == engine_id
            ]
            _LOG.warning("an engine does not deliver", extra={"transfers": len(lost)})
            with self._handshake_lock:
                if engine_id in self._remote_agents:
                    self._cleanup_remote_engine(engine_id)
            for request_id in lost:
                for handle in self._recving_transfers.pop(request_id):
                    self._release(handle)
                self._handle_failed_transfer(request_id, None)

    def _release(self, handle: Any) -> None:
        try:
            self.nixl_wrapper.release_xfer_handle(handle)
        except Exception as error:  # noqa: BLE001 - NIXL raises many kinds; the connection is closed
            _LOG.info("a transfer could not be ended", extra={"reason": str(error)})


class NixlConnector(NixlPullConnector):  # type: ignore[misc]
    """Under the name that vLLM knows; ``kv_connector_module_path`` says which one is meant."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        NixlBaseConnector.__init__(self, vllm_config, role, kv_cache_config)
        if role == KVConnectorRole.SCHEDULER:
            self.connector_scheduler = NixlPullConnectorScheduler(
                vllm_config, self.engine_id, kv_cache_config
            )
        else:
            self.connector_worker = PatientWorker(vllm_config, self.engine_id, kv_cache_config)
