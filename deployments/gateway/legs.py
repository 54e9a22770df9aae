"""What is known of a request's legs while they run, and the counts that follow from them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from deployments import wire
from deployments.gateway.accounts import Charge
from deployments.gateway.adapters import Adapter
from deployments.gateway.connection import TokenStream
from deployments.gateway.outputs import Counts, Delivered, Output, total
from deployments.gateway.plan import LegEnd, Loss, Step
from deployments.gateway.tracing.spans import Value
from router.ledger import Reservation
from router.types import RouteRequest
from weir.errors import WeirError


@dataclass(slots=True)
class Leg:
    """One placement of a choice, and its token stream. ``tokens``: the ids that it put out;
    ``loss``: whether it broke because a replica was lost, and ``failed_id`` which one (None: the
    one that answers, ``replica_id``). ``prefill_id``: another replica that computes the prompt;
    ``kept`` is what that has told, at ``kept_s``. ``stream`` and ``prefill_stream``: where the two
    are heard. ``reservation``: the replica's, with the decision that chose it. ``span_id``: in the
    request's trace, where replicas are told of it. Times are on the loop's clock; 0 is not yet."""

    replica_id: str
    tokens: list[int] = field(default_factory=list)
    started: wire.Started | None = None
    last: wire.Done | wire.Embedded | None = None
    loss: Loss = Loss.NONE
    prefill_id: str = ""
    kept: wire.Kept | None = None
    failed_id: str | None = None
    stream: TokenStream | None = None
    prefill_stream: TokenStream | None = None
    reservation: Reservation | None = None
    span_id: str = ""
    begun_s: float = 0.0
    kept_s: float = 0.0
    first_s: float = 0.0
    ended_s: float = 0.0

    def end(self, loss: Loss | None = None) -> LegEnd:
        """What rules want to know of a leg that broke; ``loss``: if it broke now."""
        failed_id = self.failed_id or self.replica_id
        return LegEnd(failed_id, len(self.tokens), self.loss if loss is None else loss)

    @property
    def told(self) -> wire.Done | wire.Embedded | wire.Started | None:
        """Who has computed the prompt knows how long it is, and what of it was cached; None while
        nothing is known."""
        return self.kept or self.last or self.started


@dataclass(slots=True)
class Choice:
    """One answer of an attempt: its prompt, what its replica is asked for, when it was admitted,
    and its legs."""

    index: int
    prompt_number: int
    route: RouteRequest
    submit: wire.Submit | wire.Embed
    legs: list[Leg] = field(default_factory=list)
    delivered: Delivered = field(default_factory=Delivered)
    admitted_s: float | None = None

    @property
    def tokens(self) -> list[int]:
        """All ids put out so far."""
        if len(self.legs) == 1:
            return self.legs[0].tokens
        return [token for leg in self.legs for token in leg.tokens]

    @property
    def counts(self) -> Counts:
        """What the choice has used so far; nothing while no replica has been asked.

        A leg that went on where another broke off computed the prompt again: that is the
        platform's loss, and is not counted.
        """
        if not self.legs:
            return Counts()
        prompt, cached = len(self.submit.prompt), 0
        for leg in self.legs:
            told = leg.told
            if told is not None:
                prompt, cached = told.prompt_tokens, told.cached_tokens
                break
        return Counts(prompt, cached, sum(len(leg.tokens) for leg in self.legs))

    def score(self) -> None:
        """Have the replica tell log-probabilities, also where the client did not ask for them."""
        if isinstance(self.submit, wire.Submit) and self.submit.logprobs is None:
            self.submit = msgspec.structs.replace(self.submit, logprobs=0)

    def begin_leg(self, reservation: Reservation, now_s: float) -> Leg:
        """The choice runs on that replica from now on."""
        leg = Leg(reservation.replica_id, reservation=reservation, begun_s=now_s, ended_s=now_s)
        self.legs.append(leg)
        return leg

    def submission(self) -> wire.Submit | wire.Embed:
        """What to ask the next replica for: all of it, or to go on behind what was put out."""
        tokens = self.tokens
        if not tokens or isinstance(self.submit, wire.Embed):
            return self.submit
        sent = self.delivered
        resume = wire.Resume(tokens, sent.text, sent.reasoning, list(sent.calls))
        return msgspec.structs.replace(self.submit, resume=resume)

    def took(self, leg: Leg, output: Output) -> int:
        """Note an output of the leg; returns how many tokens it has."""
        if isinstance(output, wire.Embedded):
            leg.last = output
            return 0
        if isinstance(output, wire.Done):
            leg.last = output
        self.delivered.add(output)
        leg.tokens += output.tokens
        return len(output.tokens)


@dataclass(slots=True)
class Attempt:
    """All choices of a request by one model.

    Times are on the loop's clock; ``admitted`` is set with ``admitted_s``, and ``waited_s`` is how
    long the first choice was in the queue. ``shown``: it was
    given to the client, in part or whole. ``doubtful``: it was held back and not good enough;
    ``doubt`` tells how sure the model was. ``number``: from 0 in its request. ``adapter``: the
    model's, that answers. ``charge``: what is reserved of the tenant's quotas and budget, where it
    has any. ``granted``: set once it is, where the attempt began before that; it shows nothing
    until then. ``error``: what it ended with; ``content``: prompt and answer for its trace, where
    the tenant wants them there.
    """

    step: Step
    choices: list[Choice]
    admitted_s: float | None = None
    admitted: asyncio.Event = field(default_factory=asyncio.Event)
    first_output_s: float | None = None
    shown: bool = False
    doubtful: bool = False
    doubt: str = ""
    number: int = 0
    adapter: Adapter | None = None
    charge: Charge | None = None
    granted: asyncio.Event | None = None
    begun_s: float = 0.0
    tokenized_s: float = 0.0
    reserved_s: float = 0.0
    ended_s: float = 0.0
    error: WeirError | None = None
    content: dict[str, Value] = field(default_factory=dict)
    waited_s: float | None = None

    @property
    def counts(self) -> Counts:
        """What the attempt has used. Choices of one prompt share it: it is counted once."""
        if len(self.choices) == 1:
            return self.choices[0].counts
        prompts: dict[int, Counts] = {}
        output = 0
        for choice in self.choices:
            counts = choice.counts
            output += counts.output_tokens
            if counts.prompt_tokens and choice.prompt_number not in prompts:
                prompts[choice.prompt_number] = counts
        once = total(prompts.values())
        return Counts(once.prompt_tokens, once.cached_tokens, output)


def leg_id(serial: str, attempt: int, choice: int, leg: int) -> str:
    """By which the ledger knows a leg: numbers from 0, of a request with a ``serial``."""
    return f"{serial}.{attempt}.{choice}.{leg}"


def billed(attempts: Sequence[Attempt], client_left: bool) -> list[tuple[Attempt, Counts]]:
    """What the tenant pays for: the counts of each attempt that counts.

    That is what was shown, what was held back and not good enough, and what ran when the client
    left. An attempt that failed before anybody saw anything of it is the platform's loss.
    """
    return [
        (attempt, attempt.counts)
        for i, attempt in enumerate(attempts)
        if attempt.shown or attempt.doubtful or (client_left and i == len(attempts) - 1)
    ]


def usage(attempts: Iterable[Attempt]) -> Counts:
    """The counts that the client is told: of its answer, and of what was held back before it."""
    listed = list(attempts)
    return total(a.counts for i, a in enumerate(listed) if a.doubtful or i == len(listed) - 1)
