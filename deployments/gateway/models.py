"""One served model as the gateway sees it: its tokenizer, its router, its replicas."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Collection
from typing import Any, Protocol

import router.scorers  # noqa: F401 - registers the policies
from deployments import wire
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.replicas import ReplicaConnection, ReplicaConnections
from deployments.gateway.requests import ChatBody, CompletionBody
from router.ledger import Reservation
from router.policy import build_policy
from router.router import Router
from router.routing_call import RoutingCall
from router.types import ReplicaStats, RouteRequest
from weir.errors import BadRequestError, ContextLengthError, NoReplicaError
from weir.settings import ModelSettings

_LOG = logging.getLogger("weir.gateway")
_SYNC_PERIOD_S = 0.5
_REPLICA_WAIT_S = 5.0
_DEFAULT_EXPECTED_OUTPUT_TOKENS = 256

Prompt = str | list[int] | list[str] | list[list[int]]


class ReplicaChooser(Protocol):
    """The part of a Serve deployment handle that the gateway uses."""

    def choose_replica(self, *args: Any, **kwargs: Any) -> Any:
        """An async context manager around Serve's replica choice."""
        ...


class ServedModel:
    """``handle`` is Serve's handle of the model's deployment."""

    def __init__(
        self, settings: ModelSettings, encoder: PromptEncoder, handle: ReplicaChooser
    ) -> None:
        self.settings = settings
        self.encoder = encoder
        policy = build_policy(settings.routing.policy, settings.routing.params)
        self.router = Router(policy, time.monotonic, random.Random())
        self._handle = handle
        self._connections: ReplicaConnections | None = None

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def max_model_len(self) -> int:
        """Context length in tokens, from the replicas (0 while there are none)."""
        return max((info.max_model_len for info in self.router.members), default=0)

    @property
    def tasks(self) -> frozenset[str]:
        """What the engine can do: generate, embed, ..."""
        return frozenset().union(*(info.tasks for info in self.router.members))

    def connect_through(self, connections: ReplicaConnections) -> None:
        """Set where connections come from (they need a running loop)."""
        self._connections = connections

    def record_load(self, replica_id: str, load: wire.Load) -> None:
        """A replica said how busy it is."""
        stats = ReplicaStats(load.running, load.waiting, load.kv_blocks_used, time.monotonic())
        self.router.update_stats(replica_id, stats)

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

    async def route(self, request: RouteRequest, exclude: Collection[str]) -> Reservation:
        """Step 7: choose a replica and reserve it.

        Raises:
            NoReplicaError: none is up (or none is left), after a short wait.
        """
        call = RoutingCall(self.router, request, exclude)
        try:
            async with asyncio.timeout(_REPLICA_WAIT_S):
                async with self._handle.choose_replica(call, _reserve=False):
                    pass
        except TimeoutError:
            raise self.nobody() from None
        except BaseException:
            if call.reservation is not None:
                call.reservation.release()
            raise
        if call.reservation is None:
            raise self.nobody()
        return call.reservation

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
        """Keep the router's members in step with Serve, for ever."""
        while True:
            try:
                async with asyncio.timeout(_SYNC_PERIOD_S):
                    async with self._handle.choose_replica(
                        RoutingCall(self.router), _reserve=False
                    ):
                        pass
            except TimeoutError:
                self.router.set_replicas(())
            await self._connect_members()
            await asyncio.sleep(_SYNC_PERIOD_S)

    async def _connect_members(self) -> None:
        assert self._connections is not None
        members = self.router.members
        await self._connections.keep_only({info.replica_id for info in members})
        for info in members:
            try:
                await self._connections.get(info.replica_id, info.address)
            except Exception as error:  # noqa: BLE001 - a dead replica is Serve's to replace
                _LOG.info("replica not reachable", extra={"reason": str(error)})

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
    return min(limit, _DEFAULT_EXPECTED_OUTPUT_TOKENS)
