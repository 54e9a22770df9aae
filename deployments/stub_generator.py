"""Generates without a model, for measuring and testing everything around one.

Token ``i`` of an answer follows from the prompt and ``i`` alone, so a stream that goes on elsewhere
goes on exactly, and a gap or a repeat shows. It speaks the whole protocol: log-probabilities, tool
calls, JSON, embeddings, prompts that are not text, resumption, halves of a request.

All streams advance together, one token a step, as an engine's do: one timer for a thousand streams.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments import wire
from deployments.streams import Abort, Put
from weir.errors import BadRequestError

VOCABULARY = 32_000
#: Tokens of a scripted tool call or JSON object.
STRUCTURED_TOKENS = 8
_MASK = (1 << 64) - 1
# Constraints on the output that a scripted answer does not keep to.
_FORMS = frozenset({"regex", "choice", "grammar", "structural_tag"})
_OPENING, _CLOSING = '{"words": "', '"}'


def prompt_seed(
    prompt: Sequence[int], seed: int | None = None, adapter: wire.Adapter | None = None
) -> int:
    """64 bits that stand for a prompt, and for the request's ``seed`` and adapter where it has
    one: an adapter's answers are others than the model's own."""
    text = repr((list(prompt), seed, adapter.key) if adapter else (list(prompt), seed)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def stub_token(seed: int, index: int) -> int:
    """Token number ``index`` of the answer to the prompt of :func:`prompt_seed`; a splitmix64."""
    mixed = (seed + (index + 1) * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return (mixed ^ (mixed >> 31)) % VOCABULARY


def stub_word(token: int) -> str:
    """The text of a token."""
    return f"w{token} "


def stub_answer(
    prompt: Sequence[int],
    count: int,
    seed: int | None = None,
    adapter: wire.Adapter | None = None,
) -> str:
    """The first ``count`` tokens' text of the plain answer to ``prompt``."""
    number = prompt_seed(prompt, seed, adapter)
    return "".join(stub_word(stub_token(number, i)) for i in range(count))


def stub_vector(prompt: Sequence[int], count: int = 8) -> list[float]:
    """The embedding of ``prompt``, of length 1."""
    seed = prompt_seed(prompt)
    raw = [stub_token(seed, i) / VOCABULARY - 0.5 for i in range(count)]
    norm = math.sqrt(sum(value * value for value in raw)) or 1.0
    return [value / norm for value in raw]


def stub_score(prompt: Sequence[int]) -> float:
    """How well the two texts of ``prompt`` suit each other."""
    return stub_token(prompt_seed(prompt), 0) / VOCABULARY


@dataclass(slots=True)
class StubCounters:
    """All that a generator has done so far, as an engine's own counters count: a prompt with its
    first token, or as soon as it is computed for another replica."""

    prompt_tokens: int = 0
    output_tokens: int = 0

    def exposition(self) -> bytes:
        """For Prometheus, by the names of vLLM's counters."""
        lines = []
        for name, told, value in (
            ("vllm:prompt_tokens", "Prompt tokens.", self.prompt_tokens),
            ("vllm:generation_tokens", "Output tokens.", self.output_tokens),
        ):
            lines += [f"# HELP {name} {told}", f"# TYPE {name} counter", f"{name}_total {value}"]
        return "\n".join([*lines, ""]).encode()


class StubGenerator:
    """One token a stream every ``interval_s`` of the running loop's clock."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self.counters = StubCounters()
        self._streams: dict[int, _StubStream] = {}
        self._count = 0
        self._steps = 0
        self._decoded = 0
        self._share_s = 0.0
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._frozen = False

    def load(self) -> wire.Load:
        """Nothing ever waits and no KV cache is used."""
        return wire.Load(
            len(self._streams),
            0,
            0,
            steps=self._steps,
            busy_s=self._steps * self._interval_s,
            decode_tokens=self._decoded,
        )

    def adapters(self) -> wire.Adapters | None:
        """See :class:`deployments.streams.Generator`."""
        return None

    async def submit(self, request: wire.Submit, put: Put) -> Abort:
        """See the protocol.

        Raises:
            BadRequestError: the answer would have to have a form that only a model can give it.
        """
        _check_form(request)
        return self._add(_StubStream.of(request, put, self.counters))

    async def embed(self, request: wire.Embed, put: Put) -> Abort:
        """A vector of length 1 that follows from the prompt; 8 dimensions unless asked for. Of a
        pair, a score between 0 and 1."""
        if request.pair is not None:
            vector = [stub_score(request.prompt)]
        else:
            count = 8 if request.dimensions is None else request.dimensions
            if count < 1:
                raise BadRequestError("dimensions must be at least 1.", param="dimensions")
            vector = stub_vector(request.prompt, count)
        self.counters.prompt_tokens += len(request.prompt)
        put(wire.Used(request.stream, len(request.prompt), 0, 0))
        put(wire.Embedded(request.stream, vector, len(request.prompt), 0))
        return _nothing

    def freeze(self) -> None:
        """Make no step until :meth:`thaw`, as an engine that hangs."""
        self._frozen = True

    def thaw(self) -> None:
        """Go on."""
        self._frozen = False
        self._schedule()

    def _add(self, stream: _StubStream) -> Abort:
        number = self._count = self._count + 1
        self._streams[number] = stream
        stream.entered_s = self._share_s
        self._schedule()

        async def abort() -> None:
            if self._streams.pop(number, None) is not None:
                stream.put_used(self._share_s)

        return abort

    def _schedule(self) -> None:
        if self._timer is None and self._streams and not self._frozen:
            loop = asyncio.get_running_loop()
            # Against the clock, not after the last step: stepping late must not add up.
            self._due_s = max(self._due_s, loop.time() - self._interval_s) + self._interval_s
            self._timer = loop.call_at(self._due_s, self._step)

    def _step(self) -> None:
        self._timer = None
        if self._frozen:
            return
        self._steps += 1
        self._decoded += len(self._streams)
        # All streams of a step share it alike: what one has taken is the difference of two
        # readings.
        self._share_s += self._interval_s / max(1, len(self._streams))
        now_s = self._share_s
        ended = [number for number, stream in self._streams.items() if stream.step(now_s)]
        for number in ended:
            del self._streams[number]
        self._schedule()


async def _nothing() -> None:
    """Ends what has ended."""


def _check_form(request: wire.Submit) -> None:
    chat = request.chat if request.chat is not None else request.messages or {}
    forms = _FORMS.intersection(chat.get("structured_outputs") or ())
    wanted = [f"structured_outputs.{name}" for name in sorted(forms)]
    if (chat.get("response_format") or {}).get("type") == "structural_tag":
        wanted.append("response_format")
    for name in ("allowed_token_ids", "thinking_token_budget", "repetition_detection"):
        if getattr(request.sampling, name) is not None:
            wanted.append(name)
    if wanted:
        raise BadRequestError(
            f"{wanted[0]}: the stub has no model that could keep to it.", param=wanted[0]
        )


@dataclass(slots=True)
class _StubStream:
    """One answer. ``index`` is the next token's number, ``begun`` the first one's made here.
    ``entered_s``: the generator's shared time when it began, ``prefill_s`` what its first step took
    of that."""

    request: wire.Submit
    put: Put
    counters: StubCounters
    prompt: list[int]
    seed: int
    script: _Script
    index: int
    begun: int
    left: wire.Resume | None = None
    told: bool = field(default=False)
    entered_s: float = 0.0
    prefill_s: float = -1.0

    @classmethod
    def of(cls, request: wire.Submit, put: Put, counters: StubCounters) -> _StubStream:
        prompt = request.prompt or rendered_prompt(request.messages)
        begun = len(request.resume.tokens) if request.resume else 0
        seed = prompt_seed(prompt, request.sampling.seed, request.adapter)
        script = _Script.of(request)
        return cls(request, put, counters, prompt, seed, script, begun, begun, request.resume)

    def put_used(self, now_s: float) -> None:
        """What the engine has counted, at ``now_s`` of the generator's shared time."""
        number, made = self.request.stream, self.index - self.begun
        if self.prefill_s < 0.0:
            self.put(wire.Used(number, 0, 0, made))
            return
        decode_s = now_s - self.entered_s - self.prefill_s
        self.put(wire.Used(number, len(self.prompt), 0, made, self.prefill_s, decode_s))

    def step(self, now_s: float) -> bool:
        """Emit the next token; True at the last one."""
        if self.prefill_s < 0.0:
            self.prefill_s = now_s - self.entered_s
            self.counters.prompt_tokens += len(self.prompt)
        if isinstance(self.request.handoff, wire.Keep):
            counts = (len(self.prompt), 0, 0)
            self.put_used(now_s)
            self.put(wire.Kept(self.request.stream, "", [], "length", *counts, b""))
            return True
        last = self.script.count - 1
        if self.index > last:  # all of it had been generated elsewhere
            self._end("", [], self._behind(wire.Extra()), now_s)
            return True
        token = stub_token(self.seed, self.index)
        piece = self.script.piece(self.index, stub_word(token))
        extra = self._extra(token, piece)
        text = "" if self.script.name else piece
        if self.left is not None:
            text = self._held_back() + text
        self.index += 1
        self.counters.output_tokens += 1
        if self.index > last:
            self._end(text, [token], extra, now_s)
            return True
        if not self.told:
            self.told = True
            self.put(wire.Started(self.request.stream, len(self.prompt), 0))
        number = self.request.stream
        rich = self.script.rich
        self.put(
            wire.RichChunk(number, text, [token], extra)
            if rich
            else wire.Chunk(number, text, [token])
        )
        return False

    def _end(self, text: str, tokens: list[int], extra: wire.Extra, now_s: float) -> None:
        self.put_used(now_s)
        if self.left is not None:
            text = self._held_back() + text
        counts = (len(self.prompt), 0, self.index - self.begun)
        done = (self.request.stream, text, tokens, self.script.finish_reason, *counts)
        self.put(wire.RichDone(*done, extra) if self.script.rich else wire.Done(*done))

    def _extra(self, token: int, piece: str) -> wire.Extra:
        extra = wire.Extra()
        if not self.script.rich:
            return extra
        if self.request.logprobs is not None:
            extra.logprobs = [_scored(self.seed, token, self.request.logprobs)]
        wanted = self.request.prompt_logprobs
        if wanted is not None and self.index == 0:
            extra.prompt_logprobs = [_scored(self.seed, t, wanted) for t in self.prompt]
            if extra.prompt_logprobs:
                first = extra.prompt_logprobs[0]
                first.logprob, first.top = None, []
        if self.script.name:
            extra.calls = [wire.CallDelta(0, piece)]
            if self.index == 0:
                extra.calls[0].id = f"call_{self.seed:016x}"
                extra.calls[0].name = self.script.name
            return self._behind(extra)
        return extra

    def _behind(self, extra: wire.Extra) -> wire.Extra:
        """With the arguments that an earlier replica had generated and not delivered."""
        if not self.script.name or self.left is None:
            return extra
        made = "".join(self._pieces(self.begun))
        sent = self.left.calls[0] if self.left.calls else 0
        delta = extra.calls[0] if extra.calls else wire.CallDelta(0, "")
        delta.arguments = made[sent:] + delta.arguments
        if not self.left.calls:
            delta.id, delta.name = f"call_{self.seed:016x}", self.script.name
        extra.calls = [delta]
        return extra

    def _held_back(self) -> str:
        resume, self.left = self.left, None
        if resume is None or self.script.name:
            return ""
        return "".join(self._pieces(self.begun))[resume.text :]

    def _pieces(self, count: int) -> list[str]:
        return [self.script.piece(i, stub_word(stub_token(self.seed, i))) for i in range(count)]


@dataclass(frozen=True, slots=True)
class _Script:
    """What a request makes the stub say: ``name`` of a tool that it calls, ``json`` for an object;
    ``count`` tokens in all."""

    count: int
    finish_reason: str
    rich: bool
    name: str = ""
    json: bool = False

    @classmethod
    def of(cls, request: wire.Submit) -> _Script:
        count = request.sampling.max_tokens
        chat = request.chat if request.chat is not None else request.messages
        rich = (
            chat is not None or request.logprobs is not None or request.prompt_logprobs is not None
        )
        chat = chat or {}
        choice = chat.get("tool_choice")
        tools = chat.get("tools") or []
        if tools and (choice == "required" or isinstance(choice, dict)):
            named = isinstance(choice, dict)
            name = choice["function"]["name"] if named else tools[0]["function"]["name"]
            reason = "stop" if named else "tool_calls"
            return cls(min(count, STRUCTURED_TOKENS), reason, rich, name=name)
        kind = (chat.get("response_format") or {}).get("type", "text")
        if kind != "text" or chat.get("structured_outputs"):
            return cls(min(count, STRUCTURED_TOKENS), "stop", rich, json=True)
        return cls(count, "length", rich)

    def piece(self, index: int, word: str) -> str:
        """What token number ``index`` adds, whose own text is ``word``."""
        if not self.name and not self.json:
            return word
        opening = _OPENING if index == 0 else ""
        return opening + word + (_CLOSING if index == self.count - 1 else "")


def _scored(seed: int, token: int, top: int) -> wire.Scored:
    """Probabilities that halve from place to place; the chosen token is the likeliest."""
    places = [token] + [stub_token(seed ^ token, i) for i in range(top - 1)]
    best = [
        wire.Scored(t, stub_word(t), -math.log(2) * (i + 1)) for i, t in enumerate(places[:top])
    ]
    return wire.Scored(token, stub_word(token), -math.log(2), best)


def rendered_prompt(messages: dict[str, Any] | None) -> list[int]:
    """Prompt ids for a body whose prompt is not text: one for every eight characters."""
    text = json.dumps(messages, sort_keys=True)
    seed = prompt_seed(text.encode())
    return [stub_token(seed, i) for i in range(max(1, len(text) // 8))]
