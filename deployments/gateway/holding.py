"""An answer that nobody sees before it is known to be good enough."""

from __future__ import annotations

from deployments import wire
from deployments.gateway.legs import Attempt
from deployments.gateway.outputs import Counts, Output, extra_of, join
from deployments.gateway.sink import Answer
from fallback.cascade import CascadeRule, Verdict, Watch


class DoubtfulAnswerError(Exception):
    """The answer is not good enough."""


class HeldAnswer:
    """Keeps the output of an attempt's one choice back until ``rule`` has its verdict, and then
    lets all of it through. How sure the model was is noted on the attempt."""

    def __init__(self, answer: Answer, rule: CascadeRule, attempt: Attempt) -> None:
        self._answer = answer
        self._rule = rule
        self._attempt = attempt
        self._watch = Watch(rule)
        self._held: list[Output] = []
        self._verdict = Verdict.HOLD

    async def put(self, choice: int, output: Output) -> None:
        """See :class:`deployments.gateway.sink.Answer`.

        Raises:
            DoubtfulAnswerError: it is not good enough.
        """
        if self._verdict is Verdict.KEEP:
            await self._answer.put(choice, output)
            return
        self._held.append(output)
        extra = extra_of(output)
        logprobs = [s.logprob for s in extra.logprobs if s.logprob is not None] if extra else []
        self._verdict = self._watch.add(logprobs, isinstance(output, wire.Done))
        if self._verdict is Verdict.HOLD:
            return
        mean = self._watch.mean_logprob
        sure = "none" if mean is None else f"{mean:.3f}"
        self._attempt.doubt = f"mean_logprob={sure}; threshold={self._rule.threshold:g}"
        if self._verdict is Verdict.ESCALATE:
            raise DoubtfulAnswerError(self._attempt.doubt)
        held, self._held = self._held, []
        await self._answer.put(choice, join(held))

    async def end(self, counts: Counts) -> None:
        """See :class:`deployments.gateway.sink.Answer`."""
        await self._answer.end(counts)
