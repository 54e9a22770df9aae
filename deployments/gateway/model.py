"""One served model: its tokenizer and limits, its router and gate, its replicas."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from deployments.gateway.encoding import Encoding
from deployments.gateway.fleet import Fleet
from deployments.gateway.off_loop import OffLoop
from deployments.gateway.plan import MoveBudget
from deployments.gateway.prefixes import PromptHasher
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.transport import CacheFeed, ReplicaTransport
from deployments.gateway.waking import Waking
from router.admission import AdmissionSettings
from router.admission.gate import Gate
from router.admission.outcomes import SpillRule
from router.admission.waiting import TenantWeights
from router.shipped import RoutingProfile
from router.types import ReplicaInfo
from weir.errors import ContextLengthError, NoReplicaError
from weir.settings import ModelSettings

#: Replicas that have left, whose pools are still known.
_REMEMBERED = 1024


class Model:
    """Needs a running event loop: its clock is the only one. ``spill``: asked by admission whether
    a request should go to the student. ``wall_clock``: seconds since the epoch, for engine
    priorities. ``rng``: the router's randomness; ``weights``: of tenants, as they are now;
    ``hold_s``: so long a request waits for a model that sleeps."""

    def __init__(
        self,
        settings: ModelSettings,
        admission: AdmissionSettings,
        encoder: PromptEncoder,
        off_loop: OffLoop,
        transport: ReplicaTransport,
        feed: CacheFeed,
        spill: SpillRule | None = None,
        wall_clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        weights: TenantWeights | None = None,
        hold_s: float = 0.0,
    ) -> None:
        clock = asyncio.get_running_loop().time
        self.settings = settings
        self.encoder = encoder
        self.off_loop = off_loop
        self.hasher = PromptHasher()
        self._pools: dict[str, str] = {}
        classes = admission.classes
        self._most_output_tokens = {
            c.name: c.max_output_tokens for c in classes if c.max_output_tokens is not None
        }
        routing = settings.routing
        profile = RoutingProfile(
            routing.policy,
            routing.params,
            admission,
            routing.disaggregation.rule,
            routing.disaggregation.params,
        )
        self.dispatcher = profile.dispatcher(
            clock, wall_clock, rng or random.Random(), spill, weights
        )
        self.router = self.dispatcher.router
        self.gate = Gate(self.dispatcher)
        self.router.listeners.append(self._members_changed)
        self.fleet = Fleet(self.router, transport, feed, self.gate.wake)
        self.moves = MoveBudget()
        self.waking = Waking(self.router, clock, hold_s if may_sleep(settings) else 0.0)
        self.generating = 0  # choices admitted and not at their end

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def folder(self) -> Path:
        """The model's tokenizer files, and of a local model all its files."""
        return self.encoder.folder

    def encoding(self, tenant: str, body_bytes: int) -> Encoding:
        """How a request's prompts become token ids now."""
        return Encoding(self.encoder, self.off_loop, self.max_model_len, tenant, body_bytes)

    @property
    def reasons(self) -> bool:
        """Whether the model's output has reasoning in it that its parser takes out."""
        return bool(self.settings.engine_args.get("reasoning_parser"))

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

    @property
    def context(self) -> int:
        """The same as ``max_model_len``, for a request that needs it.

        Raises:
            NoReplicaError: no replica is up, so it is not known.
        """
        if not self.max_model_len:
            raise self.nobody()
        return self.max_model_len

    def output_limit(
        self,
        prompt_tokens: int,
        requested: int | None,
        param: str,
        limit_param: str,
        priority_class: str = "",
    ) -> int:
        """The most tokens the answer may have. ``param`` and ``limit_param`` name the prompt and
        the requested limit in errors. What is beyond the class's most is cut, not refused: clients
        send a usual limit of their own with every request.

        Raises:
            NoReplicaError: no replica is up, so the context length is not known.
            ContextLengthError: the prompt, or prompt plus requested output, does not fit.
        """
        context = self.context
        if requested == 0 and prompt_tokens <= context:
            return 0
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
                param=limit_param,
            )
        limit = requested if requested is not None else room
        return min(limit, self._most_output_tokens.get(priority_class, limit))

    async def close(self) -> None:
        """Refuse who waits, and let go of the replicas."""
        self.gate.close()
        await self.fleet.close()

    def pool_of(self, replica_id: str) -> str:
        """The pool of a replica, also of one that has left lately; empty where there are none."""
        return self._pools.get(replica_id, "")

    def nobody(self) -> NoReplicaError:
        """The error for a request that found no replica."""
        return NoReplicaError(
            f"The model {self.name!r} has no replica that can take a request now.",
            retry_after_s=5.0,
        )

    def _members_changed(self, old: Iterable[ReplicaInfo], new: Iterable[ReplicaInfo]) -> None:
        self.hasher.follow(new)
        if self.settings.pools:
            members = {info.replica_id: info.pool for info in new}
            recent = list(self._pools.items())[-_REMEMBERED:]
            self._pools = dict(recent) | members


def may_sleep(settings: ModelSettings) -> bool:
    """Whether a model may have no replica because nobody asks for it."""
    bounds = [each.autoscaling for each in settings.pools] or [settings.autoscaling]
    return all(each is not None and not each.min_replicas for each in bounds)
