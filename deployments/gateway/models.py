"""One served model as the gateway sees it: its tokenizer, its router, its replicas."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from pathlib import Path
from typing import Any, Protocol

from deployments import wire
from deployments.gateway.prefixes import CacheFollower, PromptHasher
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.replicas import ReplicaConnection, ReplicaConnections
from deployments.gateway.requests import ChatBody, CompletionBody
from router.admission import AdmissionSettings, Refusal
from router.admission.gate import Gate
from router.admission.outcomes import SpillRule
from router.ledger import Reservation
from router.shipped import RoutingProfile
from router.subscription import Subscription
from router.types import ReplicaLoad, ReplicaStats, RouteRequest
from weir.errors import BadRequestError, ContextLengthError, NoReplicaError
from weir.settings import ModelSettings

_LOG = logging.getLogger("weir.gateway")
_TEND_PERIOD_S = 0.25
_SUBSCRIBE_PERIOD_S = 5.0
_SUBSCRIBE_TIMEOUT_S = 1.0

Prompt = str | list[int] | list[str] | list[list[int]]


class ReplicaChooser(Protocol):
    """The part of a Serve deployment handle that the gateway uses."""

    def choose_replica(self, *args: Any, **kwargs: Any) -> Any:
        """An async context manager around Serve's replica choice."""
        ...


class ServedModel:
    """``handle`` is Serve's handle of the model's deployment."""

    def __init__(
        self,
        settings: ModelSettings,
        admission: AdmissionSettings,
        encoder: PromptEncoder,
        handle: ReplicaChooser,
    ) -> None:
        self.settings = settings
        self.encoder = encoder
        self.hasher = PromptHasher()
        self._spill: SpillRule | None = None
        profile = RoutingProfile(settings.routing.policy, settings.routing.params, admission)
        self.dispatcher = profile.dispatcher(
            time.monotonic, time.time, random.Random(), self._spill_reason
        )
        self.router = self.dispatcher.router
        self.queue = self.dispatcher.queue
        self.gate = Gate(self.dispatcher)
        self._handle = handle
        self._caches = CacheFollower(self.router.index)
        self._connections: ReplicaConnections | None = None

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def max_model_len(self) -> int:
        """Context length in tokens, from the replicas (0 while there are none)."""
        return max((info.max_model_len for info in self.router.members), default=0)

    @property
    def block_size(self) -> int:
        """Tokens per KV block (0 while there are no replicas)."""
        return next((info.block_size for info in self.router.members), 0)

    @property
    def tasks(self) -> frozenset[str]:
        """What the engine can do: generate, embed, ..."""
        return frozenset().union(*(info.tasks for info in self.router.members))

    def connect_through(self, connections: ReplicaConnections) -> None:
        """Set where connections come from (they need a running loop)."""
        self._connections = connections

    def spill_by(self, rule: SpillRule) -> None:
        """Have admission ask ``rule`` whether a request should spill."""
        self._spill = rule

    def _spill_reason(
        self, request: RouteRequest, predicted_wait_s: float | None, refusal: Refusal | None
    ) -> str | None:
        return self._spill(request, predicted_wait_s, refusal) if self._spill else None

    @property
    def folder(self) -> Path:
        """The model's tokenizer files, and of a local model all its files."""
        return self.encoder.folder

    def record_load(self, replica_id: str, load: wire.Load) -> None:
        """A replica said how busy it is."""
        elsewhere = ReplicaLoad(
            load.elsewhere_requests,
            load.elsewhere_prefill_tokens,
            load.elsewhere_decode_tokens,
            load.elsewhere_context_tokens,
        )
        stats = ReplicaStats(
            load.running, load.waiting, load.kv_blocks_used, time.monotonic(), elsewhere
        )
        self.router.update_stats(replica_id, stats)
        self.gate.wake()

    def tokenize(self, body: ChatBody | CompletionBody) -> list[int]:
        """Step 5: the prompt's token ids.

        Raises:
            BadRequestError: the chat template refuses it, or an id is out of range.
        """
        if isinstance(body, ChatBody):
            messages = [m.model_dump(exclude_none=True) for m in body.messages]
            tools = [t.model_dump(exclude_none=True) for t in body.tools or ()]
            return self.encoder.encode_chat(messages, tools, body.add_generation_prompt)
        prompt = longest_prompt(body.prompt)
        if isinstance(prompt, str):
            return self.encoder.encode_text(prompt)
        limit = self.encoder.vocabulary_size
        for position, token in enumerate(prompt):
            if token >= limit:
                raise BadRequestError(
                    f"prompt[{position}]: token id {token} is not below {limit}.",
                    param=f"prompt[{position}]",
                )
        return prompt

    def output_limit(self, prompt_tokens: int, requested: int | None, param: str) -> int:
        """The most tokens the answer may have.

        Raises:
            NoReplicaError: no replica is up, so the context length is not known.
            ContextLengthError: the prompt, or prompt plus requested output, does not fit.
        """
        context = self.max_model_len
        if not context:
            raise self.nobody()
        room = context - prompt_tokens
        if room < 1:
            raise ContextLengthError(
                f"This model's context is {context} tokens; the prompt has {prompt_tokens}.",
                param=param,
            )
        if requested is not None and requested > room:
            raise ContextLengthError(
                f"This model's context is {context} tokens; the prompt has {prompt_tokens} and "
                f"{requested} more were asked for.",
                param="max_tokens",
            )
        return requested if requested is not None else room

    async def connection(self, reservation: Reservation) -> ReplicaConnection:
        """The connection to a chosen replica."""
        assert self._connections is not None
        replica_id = reservation.replica_id
        return await self._connections.get(replica_id, self.address(replica_id))

    def address(self, replica_id: str) -> str:
        """``host:port`` of a member.

        Raises:
            NoReplicaError: it is no member any more.
        """
        for info in self.router.members:
            if info.replica_id == replica_id:
                return info.address
        raise self.nobody()

    async def follow_replicas(self) -> None:
        """Keep members, connections and index in step with Serve, for ever."""
        subscribed_s = float("-inf")
        while True:
            now = time.monotonic()
            if now - subscribed_s > _SUBSCRIBE_PERIOD_S and await self._subscribe():
                subscribed_s = now
            await self._tend()
            await asyncio.sleep(_TEND_PERIOD_S)

    async def close(self) -> None:
        """Refuse who waits, and let go of the replicas."""
        self.gate.close()
        await self._caches.close()
        if self._connections is not None:
            await self._connections.close()

    async def _subscribe(self) -> bool:
        # Again and again, because Serve makes a new request router when its settings change.
        try:
            async with asyncio.timeout(_SUBSCRIBE_TIMEOUT_S):
                async with self._handle.choose_replica(Subscription(self.router)):
                    return True
        except TimeoutError:  # no replica is up
            return False
        except Exception as error:  # noqa: BLE001 - Serve replaces what failed; asked again soon
            _LOG.info("Serve could not be asked for replicas", extra={"reason": str(error)})
            return False

    async def _tend(self) -> None:
        assert self._connections is not None
        members = self.router.members
        self.hasher.follow(members)
        await self._caches.follow(members)
        await self._connections.keep_only({info.replica_id for info in members})
        self.router.index.expire(time.monotonic())
        for info in members:
            try:
                await self._connections.get(info.replica_id, info.address)
            except Exception as error:  # noqa: BLE001 - a dead replica is Serve's to replace
                _LOG.info("replica not reachable", extra={"reason": str(error)})
        self.gate.wake()

    def nobody(self) -> NoReplicaError:
        """The error for a request that found no replica."""
        return NoReplicaError(
            f"The model {self.name!r} has no replica that can take a request now.",
            retry_after_s=5.0,
        )


def longest_prompt(prompt: Prompt) -> str | list[int]:
    """The prompt itself; of several, the longest, which stands for all in limits and load."""
    if isinstance(prompt, str):
        return prompt
    ids = [part for part in prompt if isinstance(part, int)]
    if ids:
        return ids
    several = [part for part in prompt if not isinstance(part, int)]
    return max(several, key=len)


def expected_output_tokens(limit: int) -> int:
    """An estimate for load accounting: the limit, but no more than a usual answer."""
    return min(limit, wire.USUAL_OUTPUT_TOKENS)
