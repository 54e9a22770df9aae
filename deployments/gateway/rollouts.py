"""Candidate versions, as a gateway tries them: who is answered by one, what comes of that is told
to the judge (:mod:`weir.rollouts`), and some other requests are asked of it as well, unseen.

A candidate's answer is an attempt like any other. When it fails before anything was shown, the
model itself answers (:func:`deployments.gateway.plan.next_step`), and the failure counts against
the candidate. Nothing here is done for a request of a model that has no rollout but one look-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from redis.exceptions import RedisError

from deployments.gateway.bodies import ChatBody, CompletionBody, TextBody
from deployments.gateway.dialects import DIALECTS, Dialect
from deployments.gateway.ending import Cause, Ending
from deployments.gateway.legs import Attempt
from deployments.gateway.model import Model
from deployments.gateway.perplexity import JUDGE, PATHS, Perplexity
from deployments.gateway.plan import CANARY
from deployments.gateway.record import Record
from deployments.gateway.request import Door, MemoryDoor, Request
from deployments.gateway.sink import MemorySink, Sink
from weir.rollouts.course import Rollout
from weir.rollouts.samples import Arm, Sample
from weir.rollouts.split import is_chosen
from weir.rollouts.stream import FIELD, KEPT_S, MOST_ENTRIES, packed, stream_of
from weir.tenancy import Caller, Key, LiveDirectory, Tenant

_LOG = logging.getLogger("weir.gateway")
SESSION_HEADER = b"x-weir-session"
#: Who asks candidates what is mirrored: no tenant's quota, budget or bill.
MIRROR = "weir-mirror"
_PERIOD_S = 1.0
_PATIENCE_S = 2.0
_MOST_SAMPLES = 10_000
_MOST_MIRRORED = 32
_MIRRORS = 2
_SESSION_CHARS = 512
_MIRRORED = "mirrored"


class Answers(Protocol):
    """The gateway, for whoever asks it from within."""

    async def handle(self, dialect: Dialect, door: Door, sink: Sink) -> None: ...


@dataclass(frozen=True, slots=True)
class _Mirrored:
    """A request that the model has answered, for its candidate to answer too. ``repeatable``: a
    second try would come to the same text."""

    rollout: Rollout
    body: TextBody
    said: str
    repeatable: bool


class Rollouts:
    """``clock`` is the loop's. ``lazy``: the class of mirrored requests, the least urgent one."""

    def __init__(
        self,
        directory: LiveDirectory,
        models: Mapping[str, Model],
        clock: Callable[[], float],
        rng: random.Random,
        lazy: str,
    ) -> None:
        self._directory = directory
        self._models = models
        self._clock = clock
        self._rng = rng
        tenant = Tenant(MIRROR, classes=(lazy,))
        self._caller = Caller(tenant, Key("", MIRROR, ""))
        self._perplexity = Perplexity(models, lazy)
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        self._mirrored: asyncio.Queue[_Mirrored] = asyncio.Queue(_MOST_MIRRORED)

    def candidate_of(self, request: Request) -> str | None:
        """The model that answers in the place of the one that was asked for, if one does. All turns
        of a conversation get the same answer while a rollout's share does not shrink."""
        rollout = self._directory.directory.rollouts.get(request.body.model)
        if rollout is None or not rollout.share or not _takes_part(request):
            return None
        chosen = is_chosen(session_of(request), rollout.id, rollout.share)
        return rollout.candidate if chosen else None

    def hear(self, record: Record, ending: Ending) -> None:
        """A request has ended."""
        rollout = self._directory.directory.rollouts.get(record.model)
        request = record.request
        if rollout is None or request is None or not _takes_part(request):
            return
        if ending.cause is Cause.LEFT:
            return
        for attempt, arm in _compared(rollout, record):
            sample = self._sample(record, ending, attempt, arm)
            if sample is None:
                continue
            self._keep(rollout, sample)
            if arm == "live" and not sample.failed and self._rng.random() < rollout.mirror:
                self._mirror(rollout, request, attempt)

    async def run(self, gateway: Answers, redis: Any) -> None:
        """Tell the judge once a second, and ask candidates what is mirrored; until cancelled.
        ``redis``: a client of redis-py's asyncio."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell(redis))
            for _ in range(_MIRRORS):
                tasks.create_task(self._ask_mirrored(gateway))

    async def tell(self, redis: Any) -> None:
        """Hand over what there is.

        Raises:
            RedisError, OSError: it stays here, up to a bound.
        """
        for rollout_id, samples in list(self._samples.items()):
            key = stream_of(rollout_id)
            await redis.xadd(key, {FIELD: packed(samples)}, maxlen=MOST_ENTRIES, approximate=True)
            await redis.expire(key, KEPT_S)
            del self._samples[rollout_id]

    async def ask_next(self, gateway: Answers) -> None:
        """Ask the candidate the next request that is mirrored, and compare."""
        one = await self._mirrored.get()
        dialect = DIALECTS.paths[PATHS[type(one.body)]]
        body = one.body.model_copy(update={"model": one.rollout.candidate, "stream": False})
        text = body.model_dump_json(exclude_unset=True, by_alias=True)
        sink, begun_s = MemorySink(), self._clock()
        await gateway.handle(dialect, MemoryDoor(text.encode(), {}, self._caller), sink)
        if sink.error is not None and sink.error.status < 500:
            return  # the request's fault, or nobody has room for it
        if sink.error is not None:
            self._keep(one.rollout, Sample("candidate", begun_s, _MIRRORED, failed=True))
            return
        said = self._text(one.rollout.candidate, sink.choices[0].tokens)
        agrees = said == one.said if one.repeatable else None
        unlikelier = await self._unlikelier(gateway, one, said)
        sample = Sample("candidate", begun_s, _MIRRORED, agrees=agrees, unlikelier=unlikelier)
        self._keep(one.rollout, sample)

    async def _unlikelier(self, gateway: Answers, one: _Mirrored, said: str) -> float | None:
        """What a model that judges finds of the candidate's answer, where one is to be asked."""
        settings = one.rollout.settings.judge.perplexity
        if settings is None or self._rng.random() >= settings.share:
            return None
        return await self._perplexity.compared(gateway.handle, settings, one.body, one.said, said)

    async def _ask_mirrored(self, gateway: Answers) -> None:
        while True:
            await self.ask_next(gateway)

    async def _tell(self, redis: Any) -> None:
        while True:
            await asyncio.sleep(_PERIOD_S)
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self.tell(redis)
            except (RedisError, OSError, TimeoutError) as error:
                _LOG.info("the rollouts' judge learns nothing now", extra={"reason": str(error)})

    def _keep(self, rollout: Rollout, sample: Sample) -> None:
        samples = self._samples[rollout.id]
        if len(samples) < _MOST_SAMPLES:
            samples.append(sample)

    def _mirror(self, rollout: Rollout, request: Request, attempt: Attempt) -> None:
        body = request.body
        if not isinstance(body, ChatBody | CompletionBody) or len(attempt.choices) != 1:
            return
        # The texts of answers that a second try would not repeat cannot be compared; how likely
        # they are can.
        repeatable = body.temperature == 0
        if repeatable or rollout.settings.judge.perplexity is not None:
            said = self._text(rollout.model, attempt.choices[0].tokens)
            with contextlib.suppress(asyncio.QueueFull):
                self._mirrored.put_nowait(_Mirrored(rollout, body, said, repeatable))

    def _sample(self, record: Record, ending: Ending, attempt: Attempt, arm: Arm) -> Sample | None:
        """What came of an attempt; None where it says nothing about the version."""
        error = attempt.error if attempt.error is not None else record.error
        stratum = f"{ending.priority_class}:{attempt.counts.prompt_tokens.bit_length()}"
        if error is not None:
            failed = error.status >= 500
            return Sample(arm, ending.at_s, stratum, failed=True) if failed else None
        if record.request is None or ending.ttft_s is None:
            return None
        return Sample(
            arm,
            ending.at_s,
            stratum,
            ttft_s=ending.ttft_s,
            tpot_s=ending.tpot_s,
            output_tokens=ending.counts.output_tokens,
            valid=self._valid(record.request.body, attempt),
        )

    def _valid(self, body: object, attempt: Attempt) -> bool | None:
        """Whether the answer is JSON, where JSON was asked for and there was room for all of it."""
        form = getattr(body, "response_format", None)
        if form is None or form.type == "text" or len(attempt.choices) != 1:
            return None
        choice = attempt.choices[0]
        last = choice.legs[-1].last
        if getattr(last, "finish_reason", None) != "stop":
            return None
        try:
            json.loads(self._text(attempt.step.model, choice.tokens))
        except ValueError:
            return False
        return True

    def _text(self, model: str, tokens: Sequence[int]) -> str:
        return self._models[model].encoder.decode(tokens, skip_special_tokens=True)


def session_of(request: Request) -> str:
    """What stays the same over a conversation's turns: what the client says is its session or its
    user, or else who asks and how the conversation begins."""
    body = request.body
    told = request.header(SESSION_HEADER)
    for name in ("prompt_cache_key", "user"):
        told = told or getattr(body, name, None)
    if told:
        return f"{request.tenant.id}\0{told}"
    begin: object = getattr(body, "prompt", "")
    if isinstance(body, ChatBody):
        begin = next((m for m in body.messages if m.role == "user"), body.messages[:1])
    return f"{request.tenant.id}\0{request.caller.key.id}\0{str(begin)[:_SESSION_CHARS]}"


def _takes_part(request: Request) -> bool:
    """Neither a batch's line, nor a request with an adapter, nor one of the platform's own."""
    own = request.tenant.id in (MIRROR, JUDGE)
    return request.batch is None and request.adapter is None and not own


def _compared(rollout: Rollout, record: Record) -> Iterator[tuple[Attempt, Arm]]:
    """The attempts that count for either version. An answer that the model gave because the
    candidate had failed is no sample of the model's: it began late."""
    first = record.attempts[0] if record.attempts else None
    if first is None:
        return
    if first.step.spill == CANARY:
        yield first, "candidate"
    elif first.step.spill is None and first.step.model == rollout.model:
        yield first, "live"
