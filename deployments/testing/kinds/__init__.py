"""Every kind of request that clients make, with what a right answer looks like.

A new kind enters the contract suite (``tests/contract``) and the fault schedules by one more entry
in a list here.
"""

from __future__ import annotations

from collections.abc import Sequence

from deployments.testing.kinds.kind import USUAL_TASKS, Answer, Kind, Said, agrees
from deployments.testing.kinds.messages import MESSAGES
from deployments.testing.kinds.openai import OPENAI
from deployments.testing.kinds.pooling import POOLING
from deployments.testing.kinds.responses import RESPONSES
from weir.settings.tree import AdapterSettings

#: The adapter of the kind ``adapter``: whoever plays the kinds gives the model ``m`` this one.
TONE = AdapterSettings(name="tone", source="/adapters/tone")
KINDS: Sequence[Kind] = (*OPENAI, *MESSAGES, *RESPONSES, *POOLING)

__all__ = ["KINDS", "TONE", "USUAL_TASKS", "Answer", "Kind", "Said", "agrees"]
