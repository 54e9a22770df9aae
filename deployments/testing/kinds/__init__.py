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

KINDS: Sequence[Kind] = (*OPENAI, *MESSAGES, *RESPONSES, *POOLING)

__all__ = ["KINDS", "USUAL_TASKS", "Answer", "Kind", "Said", "agrees"]
