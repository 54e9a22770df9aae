"""What gateway and replica say to each other over one WebSocket per pair.

One connection carries every stream between the two, and a replica sends one message per engine
step: with 32 streams that is one system call instead of 32 on each side. The gateway sends
msgpack-encoded :data:`ToReplica`; the replica answers with lists of :data:`FromReplica`.

All text is generated this way, whatever the client asked for. A choice of ``n``, and each prompt of
several, is a stream of its own. The gateway renders and tokenizes the prompt; only a prompt that is
not text (``Submit.messages``) is rendered by the replica, which has the model's processor.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from router.tiers import TierUse

PATH = "/weir/streams"
TOKEN_HEADER = "x-weir-token"
#: Output counted as outstanding for a request that may generate more: a usual answer's length.
USUAL_OUTPUT_TOKENS = 256
#: :attr:`Failed.status` of a request whose adapter has no slot, and that does not wait for one.
ADAPTER_BUSY = 423


class Repetition(msgspec.Struct, frozen=True, omit_defaults=True):
    """When an output that repeats itself is ended: a pattern of between ``min_pattern_size`` and
    ``max_pattern_size`` tokens that comes ``min_count`` times in a row."""

    max_pattern_size: int = 0
    min_pattern_size: int = 0
    min_count: int = 0


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """OpenAI's and vLLM's sampling fields; None means the model's own default.

    ``max_tokens`` and ``min_tokens`` are of the whole output: tokens that an earlier replica
    generated (:class:`Resume`) count.
    """

    max_tokens: int
    min_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    logit_bias: dict[int, float] | None = None
    bad_words: list[str] | None = None
    allowed_token_ids: list[int] | None = None
    spaces_between_special_tokens: bool = True
    thinking_token_budget: int | None = None
    repetition_detection: Repetition | None = None


class Resume(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a stream goes on that another replica began.

    ``tokens``: the ids generated so far. The other fields say how much of what they mean the client
    has already been sent, in characters: ``text`` (of the content), ``reasoning``, and ``calls``
    (of each tool call's arguments, in order; a call listed here has been announced). The first
    output goes on exactly behind that: what the broken replica had held back is in it.
    """

    tokens: list[int]
    text: int = 0
    reasoning: int = 0
    calls: list[int] = []


class Adapter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A LoRA adapter. ``key``: its name and the version of its files, by which the engine knows it
    and hashes KV blocks; ``source``: where a replica finds it; ``wait``: whether the request waits
    while all slots are in use, or fails with :data:`ADAPTER_BUSY`."""

    key: str
    source: str
    wait: bool = True


class Keep(msgspec.Struct, frozen=True, tag="keep"):
    """Only compute the prompt, and keep its KV blocks for another replica. Nothing is put out; the
    one answer is a :class:`Kept`."""


class Take(msgspec.Struct, frozen=True, tag="take"):
    """Begin with the KV blocks that another replica has kept: the ``blocks`` of its
    :class:`Kept`. What cannot be had is computed here."""

    blocks: bytes


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """Whose a stream is: what a ledger has to know of it (:class:`weir.ledger.UsageRecord`) should
    the gateway that asks not be there to say what came of it. ``leg`` is that record's."""

    leg: str
    request: str
    tenant: str
    key: str
    model: str
    asked: str
    adapter: str
    pool: str
    replica: str
    priority_class: str
    endpoint: str
    batch: bool = False


class Submit(msgspec.Struct, frozen=True, tag="submit", omit_defaults=True):
    """Generate from ``prompt`` (token ids). ``stream`` is unique within the connection.

    ``logprobs``: log-probabilities of each generated token and of the so many likeliest beside it
    (0: of the chosen one only; None: none). ``prompt_logprobs``: the same of the prompt's tokens,
    told with the first output. ``chat``: those fields of OpenAI's chat body that decide on grammar
    and parsing, as vLLM's own request model reads them: ``tools``, ``tool_choice``,
    ``parallel_tool_calls``, ``response_format``, ``structured_outputs``, ``include_reasoning``,
    ``reasoning_effort``, ``chat_template_kwargs``. Where it is given (it may be empty), the model's
    tool and reasoning parsers read the output and what comes back are :class:`RichChunk` and
    :class:`RichDone`. ``unparsed``: no parser reads the output; ``chat`` has the grammar of a plain
    completion. ``messages``: a whole chat body whose prompt is not text; then ``prompt`` is
    empty and the replica renders it. ``handoff``: prompt and answer are two replicas' work, and
    this is which half of it. ``origin``: what the replica's engine counts for the stream is kept
    until the gateway says that it is :class:`Booked`. ``trace``: W3C's ``traceparent`` of the leg,
    where its trace is sampled: the engine's own span is then made and belongs below it.
    """

    stream: int
    request_id: str
    prompt: list[int]
    sampling: Sampling
    priority: int = 0
    cache_salt: str | None = None
    adapter: Adapter | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    chat: dict[str, Any] | None = None
    unparsed: bool = False
    messages: dict[str, Any] | None = None
    resume: Resume | None = None
    handoff: Keep | Take | None = None
    trace: str | None = None
    origin: Origin | None = None


class Pair(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the two texts of a pair are to be read. ``second``: where the tokens of the second type
    begin (None: the tokenizer marks none); ``activate``: whether the score is squashed, mostly to
    between 0 and 1 (None: as the model has it)."""

    second: int | None = None
    activate: bool | None = None


class Embed(msgspec.Struct, frozen=True, tag="embed", omit_defaults=True):
    """Embed ``prompt`` (token ids); the answer is one :class:`Embedded`.

    With ``pair``, the prompt is two texts, and the one number of the answer says how well the
    second suits the first: what a cross-encoder computes. ``trace``: see :class:`Submit`.
    """

    stream: int
    request_id: str
    prompt: list[int]
    dimensions: int | None = None
    priority: int = 0
    cache_salt: str | None = None
    pair: Pair | None = None
    trace: str | None = None
    origin: Origin | None = None


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Nobody reads ``stream`` any more: free its sequence and KV blocks at once."""

    stream: int


class Booked(msgspec.Struct, frozen=True, tag="booked", omit_defaults=True):
    """The gateway's ledger has what it was told of these ``streams`` of the connection, and the
    :class:`Owed` of these ``legs``: the replica forgets them. Said a little later, of many at a
    time."""

    streams: list[int] = []
    legs: list[str] = []


ToReplica = Submit | Embed | Cancel | Booked


class Chunk(msgspec.Struct, tag=0, array_like=True):
    """New output of one stream: the text it adds and the token ids behind it."""

    stream: int
    text: str
    tokens: list[int]


class Done(msgspec.Struct, tag=1, array_like=True):
    """The last output of a stream, with its counts. ``finish_reason``: stop, length, tool_calls,
    abort (the engine gave up: a failure of the replica).

    ``prompt_tokens`` is the prompt as the client sent it, ``output_tokens`` what this replica
    generated: neither counts the tokens of a :class:`Resume`. ``cached_tokens`` is what the KV
    cache held of the prompt, at most ``prompt_tokens``.
    """

    stream: int
    text: str
    tokens: list[int]
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


class Failed(msgspec.Struct, tag=2, array_like=True):
    """The stream ends with an error; ``status`` as in HTTP (400: the request is at fault, 501: the
    model or engine cannot do this; 503: the engine is down or full; else: it broke)."""

    stream: int
    status: int
    message: str


class Load(msgspec.Struct, tag=3, array_like=True):
    """What the engine last said of itself, and what it does for the *other* gateways.

    The ``elsewhere_*`` fields count the streams of all connections but the one that this is sent
    on, so a gateway can add them to its own ledger and nothing is counted twice. ``steps`` counts
    the engine's steps since its start: while something runs, a count that stands still is an engine
    that hangs. ``draining``: the replica is going away; its streams should go on elsewhere.
    ``mfu`` and ``mbu``: see :mod:`weir.cards.usage`; None where they are not known. ``tiers``: what
    is kept in memory and on disk; None for an engine that keeps nothing there. ``role``: what the
    replica does for a while instead of what its pool is for (empty: that), and ``role_until`` when
    that ends, in seconds since the epoch (None: when it is told to). ``busy_s``, ``prefill_tokens``
    and ``decode_tokens``: time that steps took, and tokens that they computed of prompts and
    generated, since the engine's start. ``interrupted``: it drains because its machine is about to
    be taken away. ``preparing``: streams of the gateway that is told this which the engine has not
    got yet, because a grammar is tried, an image fetched or an adapter loaded.
    """

    running: int
    waiting: int
    kv_blocks_used: int
    elsewhere_requests: int = 0
    elsewhere_prefill_tokens: int = 0
    elsewhere_decode_tokens: int = 0
    elsewhere_context_tokens: int = 0
    steps: int = 0
    draining: bool = False
    mfu: float | None = None
    mbu: float | None = None
    tiers: TierUse | None = None
    role: Literal["", "mixed", "prefill", "decode"] = ""
    role_until: float | None = None
    busy_s: float = 0.0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    interrupted: bool = False
    preparing: int = 0


class Scored(msgspec.Struct, array_like=True):
    """One token with the natural logarithm of its probability. ``token`` is its text, which may be
    a part of a character; ``top`` has the likeliest at its place, likeliest first, without
    alternatives of their own. ``logprob`` is None for the prompt's first token. ``rank``: its place
    among all tokens, from 1."""

    id: int
    token: str
    logprob: float | None
    top: list[Scored] = []
    rank: int | None = None


class CallDelta(msgspec.Struct, array_like=True):
    """A piece of the stream's tool call number ``index``; the first has its ``id`` and ``name``."""

    index: int
    arguments: str
    id: str = ""
    name: str = ""


class Extra(msgspec.Struct, array_like=True):
    """What an output carries beside text. Token counts of ``logprobs`` and ``tokens`` agree, unless
    the model's parser hides the tokens (reasoning that was not to be included)."""

    logprobs: list[Scored] = []
    reasoning: str = ""
    calls: list[CallDelta] = []
    prompt_logprobs: list[Scored] = []
    stop_reason: int | str | None = None


# Kinds of their own, so that the many who ask for plain text send no empty field. ``text`` is then
# the answer's content: what the parsers left of the output.
class RichChunk(Chunk, tag=4, array_like=True):
    """A chunk with log-probabilities, reasoning or tool calls."""

    extra: Extra


class RichDone(Done, tag=5, array_like=True):
    """The last output, with log-probabilities, reasoning or tool calls."""

    extra: Extra


class Kept(Done, tag=8, array_like=True):
    """The prompt is computed. ``blocks`` is what the replica that generates the answer has to be
    told (:class:`Take`); what it says, only the engines know. They are freed when that replica has
    them, or when nobody has asked for them for a while."""

    blocks: bytes


class Started(msgspec.Struct, tag=7, array_like=True):
    """The prompt is prefilled: told once per stream, right before its first :class:`Chunk` (a
    stream that ends with its first output has all of it in its :class:`Done`). A request that is
    broken off later is billed with these counts, so they mean what those of Done mean."""

    stream: int
    prompt_tokens: int
    cached_tokens: int


class Used(msgspec.Struct, tag=10, array_like=True):
    """What the engine has counted for a stream: told right before its last message, and after a
    :class:`Cancel` has been carried out.

    The token counts are those of the engine's own counters: ``prompt_tokens`` is 0 until the prompt
    is prefilled, and tokens that a reader did not wait for are in ``output_tokens``.
    ``prefill_s`` and ``decode_s``: the stream's share of the time that the engine's steps took,
    in seconds; negative where the engine has not told.
    """

    stream: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    prefill_s: float = -1.0
    decode_s: float = -1.0


class Owed(msgspec.Struct, tag=11, array_like=True):
    """What the engine has counted for a stream of a gateway that has gone, and did not say that it
    is :class:`Booked`. Counts and times as in :class:`Used`, of the whole stream; the gateway may
    have booked a part of it, or all. ``began_ago_s`` and ``ended_ago_s``: how long ago the stream
    began and ended."""

    origin: Origin
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    prefill_s: float
    decode_s: float
    began_ago_s: float
    ended_ago_s: float


class Embedded(msgspec.Struct, tag=6, array_like=True):
    """The answer to an :class:`Embed`: the embedding, or a pair's score alone."""

    stream: int
    vector: list[float]
    prompt_tokens: int
    cached_tokens: int = 0


class Adapters(msgspec.Struct, tag=9, array_like=True):
    """The replica's LoRA adapters, told when they change: the keys of those ``loaded`` (the least
    recently used first), which of them are in use (``busy``), for how many there are ``slots``, how
    long a load takes, and how many loads there were."""

    loaded: list[str]
    busy: list[str]
    slots: int
    load_s: float = 0.0
    loads: int = 0


#: Of one stream.
OfStream = Chunk | Done | Failed | RichChunk | RichDone | Started | Embedded | Kept | Used
FromReplica = OfStream | Adapters | Load | Owed

encode = msgspec.msgpack.Encoder().encode
decode_to_replica = msgspec.msgpack.Decoder(ToReplica).decode
decode_from_replica = msgspec.msgpack.Decoder(list[FromReplica]).decode
