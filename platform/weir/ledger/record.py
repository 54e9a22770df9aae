"""What the ledger is made of: one record for each leg of a request, and one for each stretch of
time that a replica was up."""

from __future__ import annotations

from enum import StrEnum

import msgspec

#: Longest label that a request may carry into the ledger, in characters.
MAX_LABEL_CHARS = 64
#: Behind the id of a leg: its prefill replica's half; what was told of it or of that half later;
#: what was told by the replica itself.
PREFILLED, LATER, ORPHANED = "p", "l", "o"


class Part(StrEnum):
    """Which part of a leg a record is about. ``WHOLE``: the replica that answered. ``PREFILL``:
    another replica, which computed the prompt for that one. ``LATE``: what an engine had generated
    that the gateway did not wait for, told after the leg's own record was written; it is added to
    that one. ``ORPHAN``: all that a replica's engine has counted for a leg, told because nobody had
    confirmed that it is booked; what is booked of it is taken off (:mod:`weir.ledger.orphans`)."""

    WHOLE = "whole"
    PREFILL = "prefill"
    LATE = "late"
    ORPHAN = "orphan"


class Loss(StrEnum):
    """Why a tenant does not pay for everything in a record.

    ``MOVED``: the leg went on where another broke off, and computed the prompt again. ``SHARED``:
    another choice of the request has the same prompt, and pays for it. ``HANDED_OVER``: the prompt
    is paid for in the record of the replica that answered. ``FAILED``: nobody saw anything of this
    attempt: it failed, and another model answered or an error did. ``UNSEEN``: the engine put this
    out and nobody waited for it. ``ORPHANED``: the gateway was killed, or the connection to the
    replica broke. ``REPEATED``: a batch's line that another gateway had computed, and not published
    before it was killed.
    """

    NONE = ""
    MOVED = "moved"
    SHARED = "shared"
    HANDED_OVER = "handed_over"
    FAILED = "failed"
    UNSEEN = "unseen"
    ORPHANED = "orphaned"
    REPEATED = "repeated"


class UsageRecord(msgspec.Struct, frozen=True, array_like=True, tag="u", kw_only=True):
    """One leg: one placement of a choice on a replica, and what came of it.

    ``leg`` is unique: ``serial.attempt.choice.leg``, with letters behind it for the parts that are
    not whole. Writing a record twice is writing it once.

    Token counts are of two kinds. ``prompt_tokens``, ``cached_tokens`` and ``output_tokens`` are
    the engine's own: their sums over all records are what the engines' counters say.
    ``billed_prompt_tokens``, ``billed_cached_tokens`` and ``billed_output_tokens`` are what the
    tenant pays for: their sums are the bill. A prompt that was computed twice, because a replica
    was lost, is twice in the first and once in the second; ``loss`` says why they differ.

    ``nano_usd``: the price of what is billed, in 1e-9 USD; ``asked_nano_usd``: what the same would
    have cost of the model that was asked for (``asked``), where another one answered (``model``).
    ``spill``: why it did. ``label``: the client's own (``metadata.label``). Times are milliseconds
    since the epoch. ``prefill_us`` and ``decode_us``: the replica's time that the leg has taken, in
    microseconds, as the replica measured it; None where it has not told. ``requests``: 1 in the
    first record of a request, so that their sum counts requests. ``slo``: in that record, whether
    the answer kept its class's limit for the first token (``met``, ``missed``, or empty where there
    is none); ``ttft_ms``: its time to the first token, or -1.

    New fields go to the end and have a default: a writer reads the records of an older gateway.
    """

    leg: str
    request: str
    tenant: str
    model: str
    replica: str
    started_ms: int
    ended_ms: int
    key: str = ""
    asked: str = ""
    adapter: str = ""
    pool: str = ""
    prefill_replica: str = ""
    priority_class: str = ""
    endpoint: str = ""
    label: str = ""
    part: Part = Part.WHOLE
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    billed_prompt_tokens: int = 0
    billed_cached_tokens: int = 0
    billed_output_tokens: int = 0
    images: int = 0
    nano_usd: int = 0
    asked_nano_usd: int = 0
    billed: bool = False
    loss: Loss = Loss.NONE
    spill: str = ""
    batch: bool = False
    prefill_us: int | None = None
    decode_us: int | None = None
    requests: int = 0
    slo: str = ""
    ttft_ms: int = -1


class ReplicaTime(msgspec.Struct, frozen=True, array_like=True, tag="r", kw_only=True):
    """A replica was up from ``from_ms`` to ``until_ms`` (milliseconds since the epoch).

    Several gateways say so of the same replica; what is kept is the longest stretch in each hour,
    so saying it twice is saying it once.
    """

    replica: str
    model: str
    pool: str
    from_ms: int
    until_ms: int


Entry = UsageRecord | ReplicaTime
