"""What a request leaves in the ledger: one record for each of its legs, as a fold over its
attempts.

Two sums follow from the records. That of the engine's counts is what the engines' own counters say,
so a leg that failed is there too, and so is a prompt that was computed twice. That of the billed
counts is the tenant's bill: the same that :class:`deployments.gateway.ending.Ending` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgspec

from deployments import wire
from deployments.gateway.connection import ReplicaConnection, TokenStream
from deployments.gateway.ending import Ending
from deployments.gateway.legs import Attempt, Choice, Leg, leg_id
from deployments.gateway.model import Model
from deployments.gateway.outputs import Counts
from deployments.gateway.pricing import PriceLists, images_in
from deployments.gateway.record import Record
from deployments.gateway.request import Request
from deployments.unbooked import orphan_record
from weir.cost import Price, Used
from weir.ledger import Loss, Part, UsageRecord
from weir.ledger.record import LATER, MAX_LABEL_CHARS, PREFILLED

LABEL_HEADER = b"x-weir-label"
_EMPTY = Counts()


class Ledger(Protocol):
    """Takes records, durably, at once."""

    def note(self, records: Sequence[UsageRecord]) -> None:
        """Never raises: what cannot be kept is counted."""
        ...


@dataclass(frozen=True, slots=True)
class _Share:
    """What the tenant pays for of one leg, and why not for more."""

    leg: Leg
    choice: Choice
    number: int
    counts: Counts
    loss: Loss


class Booking:
    """Books requests, where there is a ledger. ``clock`` is the loop's, ``wall_clock`` gives
    seconds since the epoch."""

    def __init__(
        self,
        models: Mapping[str, Model],
        prices: PriceLists,
        ledger: Ledger | None,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._models = models
        self._ledger = ledger
        self._clock = clock
        self._wall_clock = wall_clock
        self._prices = prices

    def book(self, record: Record, ending: Ending) -> None:
        """Once for each request, at its end."""
        if self._ledger is None or record.request is None or not record.attempts:
            return
        ahead_s = self._wall_clock() - self._clock()
        records: list[UsageRecord] = []
        streams: list[TokenStream] = []
        for number, attempt in enumerate(record.attempts):
            paid = ending.is_paid(attempt)
            writing = _Writing(record, record.request, attempt, number, ahead_s, paid)
            records += self._attempt(writing, streams)
        if records:
            slo = "" if ending.ttft_met is None else "met" if ending.ttft_met else "missed"
            ttft_ms = -1 if ending.ttft_s is None else round(ending.ttft_s * 1000)
            records[0] = msgspec.structs.replace(records[0], requests=1, slo=slo, ttft_ms=ttft_ms)
            self._ledger.note(records)
            for stream in streams:
                stream.booked()

    def take_over(self, connection: ReplicaConnection, owed: wire.Owed) -> None:
        """Book what a replica's engine has counted for a gateway that is gone: nobody pays for it,
        and what that gateway has booked of it is taken off by the ledger."""
        if self._ledger is not None:
            self._ledger.note([orphan_record(owed, int(self._wall_clock() * 1000))])
            connection.booked(leg=owed.origin.leg)

    def _attempt(self, writing: _Writing, streams: list[TokenStream]) -> Iterator[UsageRecord]:
        """The attempt's records. ``streams`` gets those of its streams of which the replica has
        said everything."""
        attempt, total, before = writing.attempt, Counts(), 0
        model = self._models[attempt.step.model]
        price = self._prices.of(model.name, attempt.adapter)
        asked = self._asked_price(writing)
        asked_before, images = 0, 0
        for share in _shares(attempt, writing.paid):
            counts, leg = share.counts, share.leg
            own_images = _images(share) if writing.paid else 0
            images += own_images
            total = Counts(
                total.prompt_tokens + counts.prompt_tokens,
                total.cached_tokens + counts.cached_tokens,
                total.output_tokens + counts.output_tokens,
            )
            # Rounded once for the attempt: a leg's price is the difference that it makes.
            used = _used(total, images, share.choice)
            how = (writing.request.priority_class, writing.request.batch is not None)
            nano_usd = price.nano_usd(used, *how)
            asked_nano_usd = asked.nano_usd(used, *how) if asked else 0
            pool = model.pool_of(leg.replica_id)
            written = writing.whole(
                share, pool, own_images, nano_usd - before, asked_nano_usd - asked_before
            )
            before, asked_before = nano_usd, asked_nano_usd
            yield written
            self._await_rest(leg.stream, written, streams)
            if leg.prefill_stream is not None:
                other = writing.prefill(share, model.pool_of(leg.prefill_id))
                yield other
                self._await_rest(leg.prefill_stream, other, streams)

    def _await_rest(
        self, stream: TokenStream | None, written: UsageRecord, streams: list[TokenStream]
    ) -> None:
        """The replica says what it came to after a stream was broken off; perhaps later."""
        if stream is None:
            return
        if stream.used is None:
            stream.on_used = partial(self._late, written, stream)
        else:
            streams.append(stream)

    def _late(self, written: UsageRecord, stream: TokenStream, used: wire.Used) -> None:
        self._book_late(written, used)
        stream.booked()

    def _book_late(self, written: UsageRecord, used: wire.Used) -> None:
        more = Counts(
            max(0, used.prompt_tokens - written.prompt_tokens),
            max(0, used.cached_tokens - written.cached_tokens),
            max(0, used.output_tokens - written.output_tokens),
        )
        if more == _EMPTY or self._ledger is None:
            return
        late = msgspec.structs.replace(
            written,
            leg=f"{written.leg}{LATER}",
            part=Part.LATE,
            ended_ms=int(self._wall_clock() * 1000),
            prompt_tokens=more.prompt_tokens,
            cached_tokens=more.cached_tokens,
            output_tokens=more.output_tokens,
            billed_prompt_tokens=0,
            billed_cached_tokens=0,
            billed_output_tokens=0,
            images=0,
            nano_usd=0,
            asked_nano_usd=0,
            billed=False,
            loss=Loss.UNSEEN,
            prefill_us=None,
            decode_us=None,
            requests=0,
        )
        self._ledger.note([late])

    def _asked_price(self, writing: _Writing) -> Price | None:
        """Of the model that was asked for, where another one answers."""
        asked = writing.record.model
        if asked == writing.attempt.step.model or asked not in self._models:
            return None
        return self._prices.of(asked)


@dataclass(frozen=True, slots=True)
class _Writing:
    """One attempt on its way into records. ``ahead_s``: the wall clock less the loop's. ``paid``:
    whether the tenant pays for the attempt."""

    record: Record
    request: Request
    attempt: Attempt
    number: int
    ahead_s: float
    paid: bool

    def whole(
        self, share: _Share, pool: str, images: int, nano_usd: int, asked_nano_usd: int
    ) -> UsageRecord:
        """The record of the replica that answered."""
        leg, counts, step = share.leg, share.counts, self.attempt.step
        engine, prefill_us, decode_us = _engine_counts(leg)
        record, request, adapter = self.record, self.request, self.attempt.adapter
        return UsageRecord(
            leg=leg_id(record.serial, self.number, share.choice.index, share.number),
            request=record.id,
            tenant=record.tenant,
            key=record.key,
            model=step.model,
            asked=request.adapter.id if request.adapter is not None else record.model,
            adapter=adapter.id if adapter is not None else "",
            pool=pool,
            replica=leg.replica_id,
            prefill_replica=leg.prefill_id,
            priority_class=request.priority_class,
            endpoint=record.endpoint,
            label=_label(request),
            started_ms=int((leg.begun_s + self.ahead_s) * 1000),
            ended_ms=int((leg.ended_s + self.ahead_s) * 1000),
            prompt_tokens=engine.prompt_tokens,
            cached_tokens=engine.cached_tokens,
            output_tokens=engine.output_tokens,
            billed_prompt_tokens=counts.prompt_tokens,
            billed_cached_tokens=counts.cached_tokens,
            billed_output_tokens=counts.output_tokens,
            images=images,
            nano_usd=nano_usd,
            asked_nano_usd=asked_nano_usd,
            billed=self.paid,
            loss=share.loss,
            spill=step.spill or "",
            batch=request.batch is not None,
            prefill_us=prefill_us,
            decode_us=decode_us,
        )

    def prefill(self, share: _Share, pool: str) -> UsageRecord:
        """The record of the replica that computed the prompt for the one that answered."""
        leg, stream = share.leg, share.leg.prefill_stream
        assert stream is not None
        used = stream.used
        told = leg.kept if used is None else None
        record = self.record
        return UsageRecord(
            leg=leg_id(record.serial, self.number, share.choice.index, share.number) + PREFILLED,
            request=record.id,
            tenant=record.tenant,
            key=record.key,
            model=self.attempt.step.model,
            asked=self.request.adapter.id if self.request.adapter is not None else record.model,
            adapter=self.attempt.adapter.id if self.attempt.adapter is not None else "",
            pool=pool,
            replica=leg.prefill_id,
            priority_class=self.request.priority_class,
            endpoint=record.endpoint,
            label=_label(self.request),
            part=Part.PREFILL,
            started_ms=int((leg.begun_s + self.ahead_s) * 1000),
            ended_ms=int((leg.ended_s + self.ahead_s) * 1000),
            prompt_tokens=used.prompt_tokens if used else told.prompt_tokens if told else 0,
            cached_tokens=used.cached_tokens if used else told.cached_tokens if told else 0,
            output_tokens=used.output_tokens if used else 0,
            loss=Loss.HANDED_OVER if self.paid else Loss.FAILED,
            spill=self.attempt.step.spill or "",
            batch=self.request.batch is not None,
            prefill_us=_microseconds(used.prefill_s) if used else None,
            decode_us=_microseconds(used.decode_s) if used else None,
        )


def _shares(attempt: Attempt, paid: bool) -> Iterator[_Share]:
    """What is paid for of each leg. Choices of one prompt share it: the first that knows it pays.
    Of a choice that moved, the leg that first knew the prompt pays for it."""
    prompts: dict[int, bool] = {}
    for choice in attempt.choices:
        counts, bearer = choice.counts, _bearer(choice)
        shared = prompts.get(choice.prompt_number, False)
        if counts.prompt_tokens:
            prompts[choice.prompt_number] = True
        for number, leg in enumerate(choice.legs):
            if not paid:
                yield _Share(leg, choice, number, _EMPTY, Loss.FAILED)
                continue
            output = len(leg.tokens)
            if leg is bearer and not shared:
                own = Counts(counts.prompt_tokens, counts.cached_tokens, output)
                yield _Share(leg, choice, number, own, Loss.NONE)
            else:
                loss = Loss.SHARED if leg is bearer else Loss.MOVED
                yield _Share(leg, choice, number, Counts(0, 0, output), loss)


def _bearer(choice: Choice) -> Leg | None:
    """The leg whose counts of the prompt are the choice's."""
    told = (leg for leg in choice.legs if leg.told is not None)
    return next(told, choice.legs[0] if choice.legs else None)


def _engine_counts(leg: Leg) -> tuple[Counts, int | None, int | None]:
    """What the engine counted, and the microseconds that it says it took: of what the replica has
    told, or else of what has arrived."""
    used = leg.stream.used if leg.stream is not None else None
    if used is not None:
        counts = Counts(used.prompt_tokens, used.cached_tokens, used.output_tokens)
        return counts, _microseconds(used.prefill_s), _microseconds(used.decode_s)
    told = leg.last or leg.started
    if told is None:
        return Counts(0, 0, len(leg.tokens)), None, None
    return Counts(told.prompt_tokens, told.cached_tokens, len(leg.tokens)), None, None


def _microseconds(seconds: float) -> int | None:
    return round(seconds * 1e6) if seconds >= 0.0 else None


def _used(counts: Counts, images: int, choice: Choice) -> Used:
    embedding = isinstance(choice.submit, wire.Embed)
    prompt, cached, output = counts.prompt_tokens, counts.cached_tokens, counts.output_tokens
    return Used(prompt, cached, output, images, embedding)


def _images(share: _Share) -> int:
    """Images of the prompt, where this leg pays for it."""
    return images_in(share.choice.submit) if share.loss is Loss.NONE else 0


def _label(request: Request) -> str:
    """The client's own, from ``metadata.label`` or a header."""
    metadata = getattr(request.body, "metadata", None)
    label = metadata.get("label") if metadata else None
    label = label or request.header(LABEL_HEADER)
    if not label:
        return ""
    # Control characters, and halves of characters, have no place in a database.
    shown = label if label.isprintable() else "".join(filter(str.isprintable, label))
    return shown[:MAX_LABEL_CHARS]
