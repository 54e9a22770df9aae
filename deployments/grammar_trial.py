"""A grammar is tried before the engine compiles it: in a process that is killed when it takes long.

No bound on a schema's size says for certain what its grammar costs. A thread that compiles cannot
be stopped, and what it allocates stays with the engine. So a grammar that is not small is first
compiled in a fork of the replica, which has a deadline and little memory of its own to take. One
that passes costs the engine about the same again, in a thread beside its steps; one that does not
is the request's own fault, and no engine ever sees it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn
from weakref import WeakValueDictionary

import xgrammar
from vllm.sampling_params import SamplingParams
from vllm.v1.structured_output.backend_xgrammar import (
    XgrammarBackend,
    validate_xgrammar_grammar,
)
from vllm.v1.structured_output.request import get_structured_output_key

from deployments.schemas import states_of
from weir.errors import BadRequestError

_LOG = logging.getLogger("weir.replica")
_GIB = 1024**3
#: Exit codes of the child. It has others where memory or processor time ran out.
_PASSED, _INVALID, _SLOW, _BROKEN = 0, 3, 4, 5


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """``compile_s``: to compile it. ``step_s``: to find the tokens that may come first, which the
    engine does at each step. ``memory_bytes``: beyond what the replica has. ``small_bytes`` and
    ``small_states``: what has less of both is not tried. ``remembered``: grammars of which is known
    how they went; one that was refused may be tried again after ``refused_s``, when the machine may
    be less busy. ``penance``: a grammar that is refused keeps its tenant's next ones waiting for so
    many times what it took."""

    compile_s: float = 2.0
    step_s: float = 0.1
    memory_bytes: int = _GIB
    small_bytes: int = 1024
    small_states: int = 1000
    remembered: int = 256
    refused_s: float = 60.0
    penance: float = 4.0


@dataclass(frozen=True, slots=True)
class _Verdict:
    """How a grammar went; ``refusal`` is None if it passed. Refusals hold until ``until_s``."""

    refusal: str | None = None
    until_s: float = 0.0


_PASSES = _Verdict()


class GrammarTrial:
    """Tries grammars one after the other, tenants in turn. ``backend`` makes vLLM's compiler, as
    the engine does."""

    def __init__(
        self, backend: Callable[[], XgrammarBackend], limits: TrialLimits | None = None
    ) -> None:
        self._make = backend
        self._limits = limits or TrialLimits()
        self._backend: XgrammarBackend | None = None
        self._known: OrderedDict[Any, _Verdict] = OrderedDict()
        self._turn = asyncio.Lock()
        #: Of each tenant that waits: only one of its requests stands in line for the turn.
        self._lines: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        #: When a tenant's next grammar may be tried, where one was refused.
        self._free_s: dict[str, float] = {}

    async def check(self, params: SamplingParams, tenant: str = "") -> None:
        """Let the grammar of a tenant's request pass, or raise.

        Raises:
            BadRequestError: it takes too long, or too much memory.
        """
        if params.structured_outputs is None or params.structured_outputs.all_constraints_none():
            return
        kind, text = get_structured_output_key(params.structured_outputs)
        if len(text) < self._limits.small_bytes and states_of(text) < self._limits.small_states:
            return
        key = kind, text
        line = self._lines.setdefault(tenant, asyncio.Lock())
        async with line:
            if not self._knows(key):
                await self._pause(tenant)
                async with self._turn:
                    if not self._knows(key):
                        await self._learn(key, params, tenant)
        refusal = self._known[key].refusal
        if refusal is not None:
            raise BadRequestError(refusal)

    def _knows(self, key: Any) -> bool:
        verdict = self._known.get(key)
        if verdict is None or (verdict.refusal and self._now_s() >= verdict.until_s):
            return False
        self._known.move_to_end(key)
        return True

    async def _pause(self, tenant: str) -> None:
        pause_s = self._free_s.get(tenant, 0.0) - self._now_s()
        if pause_s > 0.0:
            await asyncio.sleep(pause_s)
        self._free_s.pop(tenant, None)

    async def _learn(self, key: Any, params: SamplingParams, tenant: str) -> None:
        if self._backend is None:
            self._backend = await asyncio.to_thread(self._make)
        began_s, verdict, passed = self._now_s(), _PASSES, False
        try:
            await self._try(self._backend, params)
            passed = True
        except BadRequestError as error:
            verdict = _Verdict(error.message, self._now_s() + self._limits.refused_s)
        finally:
            if not passed:  # also where the client left before it was known
                self._punish(tenant, self._now_s() - began_s)
        self._known[key] = verdict
        self._known.move_to_end(key)
        if len(self._known) > self._limits.remembered:
            self._known.popitem(last=False)

    def _punish(self, tenant: str, took_s: float) -> None:
        now_s = self._now_s()
        if len(self._free_s) >= self._limits.remembered:
            self._free_s = {t: free_s for t, free_s in self._free_s.items() if free_s > now_s}
        self._free_s[tenant] = now_s + self._limits.penance * took_s

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def _try(self, backend: XgrammarBackend, params: SamplingParams) -> None:
        limits = self._limits
        began_s = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _compile(backend, params, limits)
        try:
            code = await asyncio.wait_for(_ended(pid), limits.compile_s)
        except TimeoutError:
            raise _refusal(f"takes longer than {limits.compile_s:g} s to compile") from None
        finally:
            took_s = round(time.monotonic() - began_s, 3)
            _LOG.info("a grammar was tried", extra={"seconds": took_s})
        if code == _SLOW:
            raise _refusal(f"takes longer than {limits.step_s:g} s for a token")
        if code == _BROKEN:
            raise _refusal("cannot be compiled")
        if code not in (_PASSED, _INVALID):
            raise _refusal("takes more memory than a grammar may")


def grammar_backend(client: Any) -> XgrammarBackend:
    """The compiler that the engine of this client has, once more; with one thread, so that a trial
    leaves the other cores to the engines."""
    backend = XgrammarBackend(
        client.vllm_config,
        tokenizer=client.renderer.tokenizer,
        vocab_size=client.model_config.get_vocab_size(),
    )
    tokens = backend.compiler.compile_regex("a").tokenizer_info
    backend.compiler = xgrammar.GrammarCompiler(tokens, max_threads=1, cache_enabled=False)
    return backend


async def _ended(pid: int) -> int:
    """The exit code of a child, which is killed where nobody waits for it any more."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    process = os.pidfd_open(pid)

    def reap() -> None:
        loop.remove_reader(process)
        os.close(process)
        _, status = os.waitpid(pid, 0)
        if not ended.done():
            ended.set_result(os.waitstatus_to_exitcode(status))

    loop.add_reader(process, reap)
    try:
        return await ended
    except asyncio.CancelledError:
        os.kill(pid, signal.SIGKILL)
        raise


def _compile(backend: XgrammarBackend, params: SamplingParams, limits: TrialLimits) -> NoReturn:
    """The child's whole life. Its exit code says how it went."""
    code = 1
    try:
        _bound(limits)
        code = _outcome(backend, params, limits)
    except MemoryError:
        code = 1
    except Exception:  # noqa: BLE001 - the process's edge: the compiler is foreign code
        code = _BROKEN
    finally:
        # Nothing of the parent's may run here: no exit handlers, no buffers written twice.
        os._exit(code)


def _bound(limits: TrialLimits) -> None:
    with open("/proc/self/statm", "rb") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    most = taken + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    # In case that the replica dies meanwhile, which would have killed it.
    seconds = int(limits.compile_s) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    os.nice(10)


def _outcome(backend: XgrammarBackend, params: SamplingParams, limits: TrialLimits) -> int:
    try:
        validate_xgrammar_grammar(params)
    except ValueError:
        return _INVALID  # vLLM says so as well, or has another compiler for it
    assert params.structured_outputs is not None
    kind, text = get_structured_output_key(params.structured_outputs)
    grammar = backend.compile_grammar(kind, text, None)
    mask = backend.allocate_token_bitmask(1)
    began_s = time.monotonic()
    grammar.fill_bitmask(mask, 0)
    return _SLOW if time.monotonic() - began_s > limits.step_s else _PASSED


def _refusal(what: str) -> BadRequestError:
    return BadRequestError(f"The grammar that the output has to follow {what}.")
