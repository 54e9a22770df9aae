"""What gateway and replica say to each other over one WebSocket per pair.

One connection carries every stream between the two, and a replica sends one message per engine
step: with 32 streams that is one system call instead of 32 on each side. The gateway sends
msgpack-encoded :data:`ToReplica`; the replica answers with lists of :data:`FromReplica`.
"""

from __future__ import annotations

import msgspec

PATH = "/weir/streams"
TOKEN_HEADER = "x-weir-token"
#: Output counted as outstanding for a request that may generate more: a usual answer's length.
USUAL_OUTPUT_TOKENS = 256


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """OpenAI's and vLLM's sampling fields; None means the model's own default."""

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


class Submit(msgspec.Struct, frozen=True, tag="submit", omit_defaults=True):
    """Generate from ``prompt`` (token ids). ``stream`` is unique within the connection. With
    ``logprobs`` the outputs are :class:`ScoredChunk` and :class:`ScoredDone`."""

    stream: int
    request_id: str
    prompt: list[int]
    sampling: Sampling
    priority: int = 0
    cache_salt: str | None = None
    adapter: str | None = None
    logprobs: bool = False


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Nobody reads ``stream`` any more: free its sequence and KV blocks at once."""

    stream: int


ToReplica = Submit | Cancel


class Chunk(msgspec.Struct, tag=0, array_like=True):
    """New output of one stream: the text it adds and the token ids behind it."""

    stream: int
    text: str
    tokens: list[int]


class Done(msgspec.Struct, tag=1, array_like=True):
    """The last output of a stream, with its counts. ``finish_reason``: stop, length, abort."""

    stream: int
    text: str
    tokens: list[int]
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


class Failed(msgspec.Struct, tag=2, array_like=True):
    """The stream ends with an error; ``status`` as in HTTP (400: the request is at fault)."""

    stream: int
    status: int
    message: str


class Load(msgspec.Struct, tag=3, array_like=True):
    """What the engine last said of itself, and what it does for the *other* gateways.

    The ``elsewhere_*`` fields count the streams of all connections but the one that this is sent
    on, so a gateway can add them to its own ledger and nothing is counted twice.
    """

    running: int
    waiting: int
    kv_blocks_used: int
    elsewhere_requests: int = 0
    elsewhere_prefill_tokens: int = 0
    elsewhere_decode_tokens: int = 0
    elsewhere_context_tokens: int = 0


# Kinds of their own, so that the many who do not ask for log-probabilities send no empty field.
class ScoredChunk(Chunk, tag=4, array_like=True):
    """A chunk with the natural logarithm of each token's probability."""

    logprobs: list[float]


class ScoredDone(Done, tag=5, array_like=True):
    """The last output, with the natural logarithm of each token's probability."""

    logprobs: list[float]


FromReplica = Chunk | Done | Failed | Load | ScoredChunk | ScoredDone

encode = msgspec.msgpack.Encoder().encode
decode_to_replica = msgspec.msgpack.Decoder(ToReplica).decode
decode_from_replica = msgspec.msgpack.Decoder(list[FromReplica]).decode
