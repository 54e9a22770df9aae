"""Which sequences an engine's next step should be for, when prompts give way to more urgent ones.

While a prompt is computed or can be begun, sequences less urgent than it (see
:func:`router.admission.engine_priority.engine_urgency`), prompts and decodes, are left out of the
step. Every :data:`MOST_STEPS_PAUSED` steps one step is everybody's, so that nothing stops for good.
:mod:`deployments.yielding` does this in vLLM, the simulator's engine in simulated time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: So many steps in a row may leave out less urgent sequences; then one step is everybody's.
MOST_STEPS_PAUSED = 16
#: Prompts of which at most this part of a step's budget is left are finished alone.
SHORT_PART = 4


@dataclass(frozen=True, slots=True)
class Running:
    """A running sequence: its urgency, the tokens it would take, whether they are a prompt's."""

    urgency: int
    tokens: int
    prompt: bool


@dataclass(frozen=True, slots=True)
class Step:
    """Which sequences (by index) take part in a step of at most ``budget`` tokens."""

    members: frozenset[int]
    budget: int


def urgent_step(
    running: Sequence[Running], waiting: Iterable[tuple[int, int]], budget: int
) -> Step | None:
    """The step that leaves out less urgent sequences, or None where nobody has to give way.

    ``waiting``: (urgency, prompt tokens) in the order in which they would be begun.
    """
    first = list(waiting)
    urgencies = [s.urgency for s in running if s.prompt] + [urgency for urgency, _ in first[:1]]
    urgent = min(urgencies, default=None)
    if urgent is None or all(s.urgency <= urgent for s in running):
        return None
    members = [i for i, s in enumerate(running) if s.urgency <= urgent]
    decodes = [i for i in members if not running[i].prompt]
    taken = sum(running[i].tokens for i in decodes)
    # Prompts of which little is left go alone: filled up, the step would keep their first token
    # back for many times as long.
    short, ending = (budget - taken) // SHORT_PART, 0
    alone = list(decodes)
    for i in members:
        if running[i].prompt and ending + running[i].tokens <= short:
            ending += running[i].tokens
            alone.append(i)
    if ending:
        return Step(frozenset(alone), taken + ending)
    wanted = taken + sum(running[i].tokens for i in members if running[i].prompt)
    wanted += sum(tokens for urgency, tokens in first if urgency <= urgent)
    return Step(frozenset(members), min(budget, wanted))
