"""The process in which grammars are tried: forked from its replica at the first trial, and forked
once more for each trial.

A fork copies the tables of a process's memory, which stops it meanwhile. A replica's are large and
its streams wait, so it does that once; the helper has nothing else to do. What a trial allocates
ends with the trial, and the helper with its replica. vLLM's compiler and the tokenizer are made in
the helper. A replica that is asked for no grammar has none: forked as early as it could be, a
helper kept 215 MB of its own, pages that the replica wrote to afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import pickle
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import xgrammar
from vllm.exceptions import VLLMClientError
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.structured_output.backend_guidance import (
    has_guidance_unsupported_json_features,
    validate_guidance_grammar,
)
from vllm.v1.structured_output.backend_xgrammar import (
    XgrammarBackend,
    validate_xgrammar_grammar,
)
from vllm.v1.structured_output.request import get_structured_output_key
from vllm.v1.structured_output.utils import maybe_wrap_mistral_common_tokenizer

from deployments.child import end_with_parent, name_thread
from weir.errors import OverloadedError

_LOG = logging.getLogger("weir.replica")
_GIB = 1024**3
_LENGTH = struct.Struct("<I")
_REPLY = struct.Struct("<Ii")  # which trial, and its code
#: Exit codes of a trial. It has others where its memory ran out.
PASSED, INVALID, SLOW, BROKEN = 0, 3, 4, 5
#: Told in a code's place: the deadline passed.
OVER = -1
#: How long the helper may take for the tokenizer and the compiler, at its first trial.
_READY_S = 60.0
_SLACK_S = 5.0

Backend = Callable[[], XgrammarBackend]


@dataclass(frozen=True, slots=True)
class TrialBounds:
    """``compile_s``: to compile it. ``step_s``: to find the tokens that may come first, which the
    engine does at each step. ``memory_bytes``: beyond what the helper has."""

    compile_s: float = 2.0
    step_s: float = 0.1
    memory_bytes: int = _GIB


class GrammarHelper:
    """``backend`` makes vLLM's compiler, in the helper. Asked for one trial at a time."""

    def __init__(self, backend: Backend, bounds: TrialBounds | None = None) -> None:
        self._backend = backend
        self.bounds = bounds or TrialBounds()
        self._socket: socket.socket | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._number = 0
        self.pid = 0

    def start(self) -> None:
        """Fork, which the first trial does by itself."""
        ours, theirs = socket.socketpair()
        gc.collect()
        gc.freeze()  # a collection in either process would copy the pages that they share
        replica = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _live(replica, theirs, self._backend, self.bounds)
        gc.unfreeze()
        theirs.close()
        self._socket = ours

    async def try_grammar(self, asked: StructuredOutputsParams) -> int:
        """How it went: an exit code, or OVER.

        Raises:
            OverloadedError: the helper died of something else than the grammar, twice.
        """
        for _ in range(2):
            try:
                return await self._ask(asked)
            except (OSError, EOFError, TimeoutError):
                _LOG.warning("the process that tries grammars is gone; another one is forked")
                self.close()
        raise OverloadedError("Grammars cannot be tried at present.")

    def close(self) -> None:
        """End the helper, and the trial in it."""
        if self._streams is not None:
            self._streams[1].close()
        elif self._socket is not None:
            self._socket.close()
        self._streams = self._socket = None
        if self.pid:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            self.pid = 0

    async def _ask(self, asked: StructuredOutputsParams) -> int:
        if self._socket is None:
            self.start()
        if self._streams is None:
            self._streams = await asyncio.open_connection(sock=self._socket)
        reader, writer = self._streams
        self._number = number = self._number + 1
        writer.write(_frame((number, asked)))
        limit_s = _READY_S + self.bounds.compile_s + _SLACK_S
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    told, code = _REPLY.unpack(await reader.readexactly(_REPLY.size))
                    if told == number:
                        return int(code)
        except asyncio.CancelledError:
            writer.write(_frame((number, None)))  # nobody waits for it any more
            raise


def grammar_backend(config: Any) -> XgrammarBackend:
    """The compiler that an engine of this vLLM configuration has; with one thread, so that a trial
    leaves the other cores to the engines."""
    model = config.model_config
    tokenizer = maybe_wrap_mistral_common_tokenizer(cached_tokenizer_from_config(model))
    backend = XgrammarBackend(config, tokenizer=tokenizer, vocab_size=model.get_vocab_size())
    tokens = backend.compiler.compile_regex("a").tokenizer_info
    backend.compiler = xgrammar.GrammarCompiler(tokens, max_threads=1, cache_enabled=False)
    return backend


def _frame(told: Any) -> bytes:
    data = pickle.dumps(told)
    return _LENGTH.pack(len(data)) + data


def _live(replica: int, pipe: socket.socket, make: Backend, bounds: TrialBounds) -> NoReturn:
    """The helper's whole life."""
    try:
        gc.disable()
        _stay_apart(replica, pipe)
        backend = None
        while True:
            number, asked = _read(pipe)
            if asked is None:
                continue  # a trial that had ended when it was given up
            if backend is None:
                backend = make()
            code = _try(pipe, number, backend, asked, bounds)
            pipe.sendall(_REPLY.pack(number, code))
    finally:  # whatever it was: its replica sees the pipe's end
        os._exit(1)


def _stay_apart(replica: int, pipe: socket.socket) -> None:
    """End with the replica, and hold none of what it has open: connections, locks, devices."""
    _end_with(replica)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (0, 1, 2, pipe.fileno()):
            with contextlib.suppress(OSError):
                os.close(int(name))
    os.nice(10)


def _end_with(parent: int) -> None:
    end_with_parent(parent, signal.SIGKILL)
    name_thread(b"grammar-trials")


def _read(pipe: socket.socket) -> Any:
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return pickle.loads(_exactly(pipe, length))


def _exactly(pipe: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = pipe.recv(count - len(data))
        if not more:
            os._exit(0)  # the replica has ended
        data += more
    return bytes(data)


def _try(
    pipe: socket.socket,
    number: int,
    backend: XgrammarBackend,
    asked: StructuredOutputsParams,
    bounds: TrialBounds,
) -> int:
    """Fork, and wait for the end: the trial's own, the deadline's, or the replica's word."""
    helper = os.getpid()
    pid = os.fork()
    if pid == 0:
        _compile(helper, backend, asked, bounds)
    process = os.pidfd_open(pid)
    try:
        over_s, waits = time.monotonic() + bounds.compile_s, [process, pipe.fileno()]
        while True:
            left_s = over_s - time.monotonic()
            ready = select.select(waits, [], [], max(0.0, left_s))[0]
            if process in ready:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if not ready or _read(pipe) == (number, None):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return OVER
    finally:
        os.close(process)


def _compile(
    helper: int, backend: XgrammarBackend, asked: StructuredOutputsParams, bounds: TrialBounds
) -> NoReturn:
    """A trial's whole life. Its exit code says how it went."""
    code = 1
    try:
        _end_with(helper)
        _bound(bounds)
        code = _outcome(backend, asked, bounds)
    except MemoryError:
        code = 1
    except Exception:  # noqa: BLE001 - the process's edge: the compiler is foreign code
        code = BROKEN
    finally:
        # Nothing of the parent's may run here: no exit handlers, no buffers written twice.
        os._exit(code)


def _bound(bounds: TrialBounds) -> None:
    with open("/proc/self/statm", "rb") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    most = taken + bounds.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _outcome(backend: XgrammarBackend, asked: StructuredOutputsParams, bounds: TrialBounds) -> int:
    params = SamplingParams(structured_outputs=asked)
    try:
        validate_xgrammar_grammar(params)
    except (ValueError, VLLMClientError):
        return _other_outcome(params, asked)
    kind, text = get_structured_output_key(asked)
    grammar = backend.compile_grammar(kind, text, None)
    mask = backend.allocate_token_bitmask(1)
    began_s = time.monotonic()
    grammar.fill_bitmask(mask, 0)
    return SLOW if time.monotonic() - began_s > bounds.step_s else PASSED


def _other_outcome(params: SamplingParams, asked: StructuredOutputsParams) -> int:
    """Of what xgrammar does not compile. vLLM gives it to llguidance, which has bounds of its own,
    or refuses it with the reason; a schema that llguidance cannot do either would be compiled by
    outlines, which has none."""
    try:
        schema = json.loads(asked.json) if isinstance(asked.json, str) else asked.json
        if schema and has_guidance_unsupported_json_features(schema):
            return BROKEN
        validate_guidance_grammar(params, tokenizer=None)
    except (ValueError, VLLMClientError):
        pass  # vLLM says so as well
    return INVALID
