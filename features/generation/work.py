"""One worker's work: parts, within a budget of tokens."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from features.desk_data import DataFolder
from features.generation.histories import Histories
from features.generation.output import TONES
from features.generation.prompts import Prompt, Template
from features.generation.runs import Paid, Run
from features.generation.writing import Writer, WriterError, Written


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """What became of one part; tokens are those paid now, not those of earlier tries."""

    part: int
    state: Literal["done", "over_budget", "failed"]
    entities: int
    prompt_tokens: int
    output_tokens: int
    reason: str = ""


class Budget:
    """A number of tokens that is never exceeded: what may be spent is taken out beforehand."""

    def __init__(self, tokens: int | None) -> None:
        self._left = tokens

    def fits(self, bounds: list[int]) -> int:
        """How many of the prompts, from the first, can be paid whatever they turn out to cost."""
        if self._left is None:
            return len(bounds)
        total = 0
        for count, bound in enumerate(bounds):
            total += bound
            if total > self._left:
                return count
        return len(bounds)

    def spend(self, tokens: int) -> None:
        """What it did cost."""
        if self._left is not None:
            self._left -= tokens


class PartWork:
    """Writes parts of one run with one writer."""

    def __init__(
        self,
        run: Run,
        data: DataFolder,
        writer: Writer,
        budget: Budget,
        now: Callable[[], dt.datetime],
    ) -> None:
        self._run, self._writer, self._budget, self._now = run, writer, budget, now
        self._plan = run.plan()
        self._template = Template(self._plan.template_name, self._plan.template_text)
        self._histories = Histories(data, self._plan.entities)

    def do(self, number: int) -> PartOutcome:
        """Finish part ``number``, or as much of it as the budget allows."""
        answers = self._run.journal(number).read()
        before = frozenset(answers)
        state, reason = "done", ""
        try:
            while missing := [e for e in self._plan.parts[number] if e not in answers]:
                if not self._answer_some(number, missing, answers):
                    state = "over_budget"
                    break
        except WriterError as error:
            state, reason = "failed", error.message
        if state == "done":
            self._run.commit(self._plan, number, answers)
        fresh = [paid.written for entity, paid in answers.items() if entity not in before]
        return PartOutcome(
            number,
            state,  # type: ignore[arg-type]
            len(fresh),
            sum(each.prompt_tokens for each in fresh),
            sum(each.output_tokens for each in fresh),
            reason,
        )

    def _answer_some(self, number: int, missing: list[str], answers: dict[str, Paid]) -> bool:
        """Answer as many as can be paid for now; False if that is none."""
        prompts = [self._prompt(entity) for entity in missing]
        count = self._budget.fits([self._writer.bound(prompt) for prompt in prompts])
        if not count:
            return False
        journal = self._run.journal(number)

        def done(index: int, written: Written) -> None:
            paid = journal.add(missing[index], written, self._now())
            answers[missing[index]] = paid
            self._budget.spend(paid.tokens)

        self._writer.write(prompts[:count], done)
        return True

    def _prompt(self, entity: str) -> Prompt:
        history = self._histories.history(entity)
        if history is None:
            raise WriterError(f"{entity} has no history any more")
        return self._template.prompt(history, TONES)
