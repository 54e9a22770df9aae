"""A grammar is tried before the engine compiles it: in a process that is killed when it takes long.

No bound on a schema's size says for certain what its grammar costs. A thread that compiles cannot
be stopped, and what it allocates stays with the engine. So a grammar that is not small is first
compiled in a process beside the replica (:mod:`deployments.grammar_helper`), which has a deadline
and little memory to take. One that passes costs the engine about the same again, in a thread beside
its steps; one that does not is the request's own fault, and no engine ever sees it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.structured_output.request import get_structured_output_key

from deployments.grammar_helper import BROKEN, INVALID, OVER, PASSED, SLOW, TrialBounds
from deployments.schemas import states_of
from weir.errors import BadRequestError, OverloadedError

_LOG = logging.getLogger("weir.replica")

Try = Callable[[StructuredOutputsParams], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """``bounds``: what one trial may take. ``small_bytes`` and ``small_states``: what has less of
    both is not tried. ``remembered``: grammars of which is known how they went; one that was
    refused may be tried again after ``refused_s``, when the machine may be less busy. ``penance``:
    a grammar that is refused keeps its tenant's next ones waiting for so many times what it took.
    ``places``: so many requests of one tenant wait for a trial."""

    bounds: TrialBounds = field(default_factory=TrialBounds)
    small_bytes: int = 1024
    small_states: int = 1000
    remembered: int = 256
    refused_s: float = 60.0
    penance: float = 4.0
    places: int = 64


@dataclass(frozen=True, slots=True)
class _Verdict:
    """How a grammar went; ``refusal`` is None if it passed. Refusals hold until ``until_s``."""

    refusal: str | None = None
    until_s: float = 0.0


_PASSES = _Verdict()


class GrammarTrial:
    """Has grammars tried one after the other, tenants in turn. ``tries`` says how one went, as
    :meth:`GrammarHelper.try_grammar` does."""

    def __init__(self, tries: Try, limits: TrialLimits | None = None) -> None:
        self._try = tries
        self._limits = limits or TrialLimits()
        self._known: OrderedDict[Any, _Verdict] = OrderedDict()
        self._turn = asyncio.Lock()
        self._waiting: Counter[str] = Counter()
        #: Of each tenant that waits: only one of its requests stands in line for the turn.
        self._lines: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        #: When a tenant's next grammar may be tried, where one was refused.
        self._free_s: dict[str, float] = {}

    async def check(self, params: SamplingParams, tenant: str = "") -> None:
        """Let the grammar of a tenant's request pass, or raise.

        Raises:
            BadRequestError: it takes too long, or too much memory.
            OverloadedError: too many of the tenant's wait for a trial.
        """
        asked = params.structured_outputs
        if asked is None or asked.all_constraints_none():
            return
        kind, text = get_structured_output_key(asked)
        if len(text) < self._limits.small_bytes and states_of(text) < self._limits.small_states:
            return
        key = kind, text
        if not self._knows(key):
            await self._wait_for_trial(key, asked, tenant)
        refusal = self._known[key].refusal
        if refusal is not None:
            raise BadRequestError(refusal)

    async def _wait_for_trial(self, key: Any, asked: StructuredOutputsParams, tenant: str) -> None:
        if self._waiting[tenant] >= self._limits.places:
            raise OverloadedError("Too many of your requests wait for their grammars to be tried.")
        line = self._lines.setdefault(tenant, asyncio.Lock())
        self._waiting[tenant] += 1
        try:
            async with line:
                if not self._knows(key):
                    await self._pause(tenant)
                    async with self._turn:
                        if not self._knows(key):
                            await self._learn(key, asked, tenant)
        finally:
            self._waiting[tenant] -= 1
            if not self._waiting[tenant]:
                del self._waiting[tenant]

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

    async def _learn(self, key: Any, asked: StructuredOutputsParams, tenant: str) -> None:
        began_s, verdict, passed = self._now_s(), _PASSES, False
        try:
            refusal = self._refusal(await self._try(asked))
            passed = refusal is None
            if refusal is not None:
                verdict = _Verdict(refusal, self._now_s() + self._limits.refused_s)
        finally:
            took_s = self._now_s() - began_s
            _LOG.info("a grammar was tried", extra={"seconds": round(took_s, 3)})
            if not passed:  # also where the client left before it was known
                self._punish(tenant, took_s)
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

    def _refusal(self, code: int) -> str | None:
        """What the client is told of a trial's outcome; None where the grammar passes."""
        if code in (PASSED, INVALID):
            return None
        bounds = self._limits.bounds
        what = {
            OVER: f"takes longer than {bounds.compile_s:g} s to compile",
            SLOW: f"takes longer than {bounds.step_s:g} s for a token",
            BROKEN: "cannot be compiled",
        }.get(code, "takes more memory than a grammar may")
        return f"The grammar that the output has to follow {what}."
