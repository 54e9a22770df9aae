"""How answers' samples get from gateways to the judge: one Redis stream for each rollout.

The stream keeps what the judge has read, up to a bound, so that a judge that is started anew comes
to the same evidence: it reads the stream from its beginning. What Redis loses is lost evidence, and
nothing worse."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from weir.rollouts.samples import Sample

FIELD = b"s"
#: Entries kept, each with the samples of one gateway's second.
MOST_ENTRIES = 200_000
#: A stream that nobody has written to for so long goes by itself.
KEPT_S = 14 * 86_400
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Sample])


def stream_of(rollout_id: str) -> str:
    """The stream's key."""
    return f"weir:rollout:{{{rollout_id}}}"


def packed(samples: Sequence[Sample]) -> bytes:
    """The value of an entry's :data:`FIELD`."""
    return _ENCODER.encode(list(samples))


def unpacked(value: bytes) -> list[Sample]:
    """Raises:
    msgspec.DecodeError, msgspec.ValidationError: it is not from :func:`packed`.
    """
    return _DECODER.decode(value)
