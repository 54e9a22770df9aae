"""The first half of a leg that two replicas share: one computes the prompt, the other answers.

The prefill replica is asked for the prompt alone, and what it says of the KV blocks that it keeps
goes to the other one unread. Nothing of it reaches the client, so whatever goes wrong until the
first output is a leg in vain, like any other: placed again, within the same rules.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec

from deployments import wire
from deployments.gateway.connection import (
    ReplicaConnection,
    ReplicaLeavingError,
    ReplicaLostError,
    ReplicaStuckError,
    TokenStream,
)
from deployments.gateway.fleet import Fleet
from deployments.gateway.legs import Leg
from deployments.gateway.outputs import Output
from weir.errors import ReplicaFailedError, UnsupportedError
from weir.ledger.record import PREFILLED

_LOG = logging.getLogger("weir.gateway")
#: So long the answering replica may take for its first output in any case.
HANDOFF_S = 30.0
#: And so long when the other one is lost: engines notice that by themselves, and compute the
#: prompt; one that waits for a machine which does not even refuse may never notice.
AFTER_LOSS_S = 2.0
_CHECK_S = 0.25


def can_hand_off(request: wire.Submit | wire.Embed) -> bool:
    """Whether it has two halves. The prompt's own log-probabilities come into being while it is
    computed, so that replica has to answer; so it is with prompts that a replica renders (images),
    and with the rest of an answer that broke off."""
    return (
        isinstance(request, wire.Submit)
        and request.resume is None
        and request.messages is None
        and request.prompt_logprobs is None
    )


def prompt_alone(request: wire.Submit, leg: Leg, pool: str) -> wire.Submit:
    """What the prefill replica, which is in ``pool``, is asked for."""
    origin = request.origin
    if origin is not None:
        own = {"leg": origin.leg + PREFILLED, "replica": leg.prefill_id, "pool": pool}
        origin = msgspec.structs.replace(origin, **own)
    return wire.Submit(
        request.stream,
        request.request_id,
        request.prompt,
        wire.Sampling(max_tokens=1, temperature=0.0),
        priority=request.priority,
        cache_salt=request.cache_salt,
        adapter=request.adapter,
        handoff=wire.Keep(),
        trace=request.trace,
        origin=origin,
    )


@dataclass(frozen=True, slots=True)
class Handoff:
    """A prompt that ``source`` has computed. ``asked_s``: when the answering replica was asked to
    fetch it, on the loop's clock."""

    source: ReplicaConnection
    kept: wire.Kept
    asked_s: float

    def request(self, request: wire.Submit | wire.Embed) -> wire.Submit | wire.Embed:
        """What the answering replica is asked for."""
        return msgspec.structs.replace(request, handoff=wire.Take(self.kept.blocks))

    def arrived(self, cached_tokens: int) -> bool:
        """Whether the answering replica has got the blocks, by what it says that it need not
        compute: with them, that is all but the last token, which engines compute in any case."""
        return cached_tokens >= self.kept.prompt_tokens - 1

    async def first_output(self, stream: TokenStream, leg: Leg) -> Output:
        """The answering replica's.

        Raises:
            ReplicaLostError: it does not come, because of the other replica.
            WeirError: as :meth:`TokenStream.next`.
        """
        clock = asyncio.get_running_loop().time
        waiting = asyncio.ensure_future(stream.next())
        give_up_s = self.asked_s + HANDOFF_S
        try:
            while not waiting.done() and clock() < give_up_s:
                await asyncio.wait([waiting], timeout=_CHECK_S)
                if self.source.broken:
                    give_up_s = min(give_up_s, clock() + AFTER_LOSS_S)
                    await asyncio.wait([waiting], timeout=give_up_s - clock())
            if waiting.done():
                return waiting.result()
        finally:
            waiting.cancel()
        leg.failed_id = self.source.replica_id
        raise ReplicaLostError(f"Replica {leg.failed_id} did not hand its KV blocks over.")


async def compute_prompt(
    fleet: Fleet, leg: Leg, request: wire.Submit, pool: str = ""
) -> Handoff | None:
    """Have the leg's prefill replica compute the prompt. None: its engine hands nothing over.

    Raises:
        ReplicaFailedError: it failed; the leg says which of its replicas that was.
        WeirError: the request is at fault.
    """
    try:
        source = await fleet.connection(leg.prefill_id)
        stream = leg.prefill_stream = source.submit(prompt_alone(request, leg, pool))
        stream.stays = True
        try:
            told = await _answer(fleet, leg.prefill_id, stream)
        finally:
            stream.close()
        if not isinstance(told, wire.Kept):
            raise ReplicaStuckError("The replica stopped in the middle of the prompt.")
    except UnsupportedError as error:
        _LOG.warning("no hand-off", extra={"replica": leg.prefill_id, "reason": error.message})
        return None
    except ReplicaFailedError:
        leg.failed_id = leg.prefill_id
        raise
    leg.kept, leg.kept_s = told, asyncio.get_running_loop().time()
    return Handoff(source, told, leg.kept_s)


async def _answer(fleet: Fleet, replica_id: str, stream: TokenStream) -> Output:
    while True:
        try:
            return await stream.next()
        except ReplicaLeavingError:
            if fleet.others(replica_id):
                raise  # else the replica waits for its last streams
