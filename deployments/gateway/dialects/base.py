"""What a dialect is: one kind of body, and how its answers are written.

A dialect is one file here with one class, registered by its path. The request path knows nothing
else of it: it parses a body into what is to be generated, and turns outputs into events and whole
answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from pydantic import BaseModel

from deployments import wire
from deployments.gateway.bodies.unknown import Unknown
from deployments.gateway.encoding import Encoding
from deployments.gateway.outputs import Collected, Counts, Output
from deployments.gateway.prompts import PromptEncoder
from weir.errors import WeirError


class Writer(Protocol):
    """Writes one answer. ``choice`` numbers the answer's choices from 0."""

    def event(self, choice: int, output: Output) -> bytes:
        """What one output adds to the event stream; empty where it adds nothing."""
        ...

    def last_event(self, counts: Counts) -> bytes:
        """The end of the event stream."""
        ...

    def error_event(self, error: WeirError) -> bytes:
        """An error in the middle of the event stream, where the status line is long gone."""
        ...

    def whole(self, choices: Sequence[Collected], counts: Counts) -> bytes:
        """The whole answer as JSON."""
        ...


class Dialect(Protocol):
    """One kind of request. ``prompt_field`` names the prompt in error messages; ``family`` (whose
    API it is), ``summary`` and ``body`` describe it in the API's documentation. ``keep_alive``:
    what clients of an event stream skip, at any place between two events."""

    name: str
    path: str
    prompt_field: str
    family: str
    summary: str
    keep_alive: bytes

    @property
    def body(self) -> type[BaseModel]:
        """The model of its bodies."""
        ...

    def parse(self, raw: bytes, unknown: Unknown | None = None) -> Any:
        """The body. ``unknown`` is told of fields that nobody knows (None: they are refused).

        Raises:
            BadRequestError: the first thing wrong, with ``param`` naming the field.
        """
        ...

    def suited(self, tasks: frozenset[str]) -> Dialect | None:
        """The dialect in the way in which a model answers it whose engine can do ``tasks``
        (generate, embed, score, ...); None where the model cannot."""
        ...

    async def prompts(self, body: Any, encoding: Encoding) -> list[list[int]]:
        """The token ids of each prompt (empty for one that the replica has to render).

        Raises:
            WeirError: what :class:`Encoding` raises.
        """
        ...

    def choices(self, body: Any) -> int:
        """How many answers there are to be: so many for each prompt, in the prompts' order. None
        where the prompts are only to be looked at: then no replica is asked for anything."""
        ...

    def output_limit(self, body: Any) -> int | None:
        """The most tokens that an answer may have, as the client says (None: it does not)."""
        ...

    def limit_field(self, body: Any) -> str:
        """The name of the field that says so."""
        ...

    def submission(
        self, body: Any, prompt: list[int], max_tokens: int, reasons: bool
    ) -> wire.Submit | wire.Embed:
        """What the replica is asked for. ``reasons``: the model's output needs its reasoning
        parser. Stream number, request id, priority and salt are filled in later."""
        ...

    def writer(
        self,
        body: Any,
        request_id: str,
        created_s: int,
        prompts: Prompts,
        encoder: PromptEncoder,
    ) -> Writer:
        """The writer of the answer. ``created_s``: seconds since the epoch."""
        ...

    def error_body(self, error: WeirError) -> dict[str, Any]:
        """An error that comes in place of the answer, of whatever has gone wrong since the first
        byte of the request."""
        ...

    def error_event(self, error: WeirError) -> bytes:
        """The same on an event stream that was opened before there was an answer."""
        ...


Prompts = Sequence[Sequence[int]]
#: A comment, in the words of the standard for server-sent events: no client sees it.
COMMENT = b": waiting\n\n"


class Registry:
    """The dialects by path. Registering a path twice is an error."""

    def __init__(self) -> None:
        self._dialects: list[Dialect] = []
        self._by_path: dict[str, Dialect] = {}
        self._batchable: dict[str, Dialect] = {}

    def register(self, dialect: Dialect, *also: str, batchable: bool = False) -> None:
        """Serve this dialect; ``also`` are further paths at which clients look for it.
        ``batchable``: it may be a line of a batch job.

        Raises:
            ValueError: one of its paths is taken.
        """
        for path in (dialect.path, *also):
            if path in self._by_path:
                raise ValueError(f"a dialect at {path} is registered already")
            self._by_path[path] = dialect
        self._dialects.append(dialect)
        if batchable:
            self._batchable[dialect.path] = dialect

    def find(self, path: str) -> Dialect | None:
        """The dialect at a path; a slash at its end does not matter."""
        return self._by_path.get(path) or self._by_path.get(path.rstrip("/"))

    def __iter__(self) -> Iterator[Dialect]:
        return iter(self._dialects)

    @property
    def batchable(self) -> Mapping[str, Dialect]:
        """Those that may be lines of batch jobs, by their path."""
        return self._batchable

    @property
    def paths(self) -> dict[str, Dialect]:
        """Every path, with what is spoken there."""
        return dict(self._by_path)
