"""How prefill and decode on one replica slow each other down: what is measured of it, per replica.

A step that computes part of a prompt takes that much longer for every sequence that decodes. So a
replica that spends the share *p* of its time on prompts puts out tokens every ``step / (1 - p)``
seconds, ``step`` being what a step without a prompt takes. The latter is learned from answers with
the time taken out that prompts took meanwhile, so that what is learned of a replica while it
computes prompts still holds when it does not, and the other way round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from router.latency import LatencyBook
from router.ledger import Outlook

#: Beyond that a replica is taken to do nothing but prompts.
_MOST_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Slo:
    """Seconds to the first token, from arrival; seconds per later token, on average."""

    ttft_s: float = 10.0
    tpot_s: float = 0.1


def lateness(ratio: float, power: float) -> float:
    """What a latency costs that is ``ratio`` times its target: ``ratio ** power`` up to the target,
    from there on straight in the same direction. So what is early costs next to nothing, and what
    is late still counts."""
    if ratio <= 1.0:
        return math.pow(max(0.0, ratio), power)
    return 1.0 + power * (ratio - 1.0)


class ReplicaPace:
    """One replica. ``prompt_s``: seconds that its finished prompts took, summed up since ever;
    ``decoding``: answers under way or reserved there; ``urgency`` the sum of 1 / TPOT target over
    them, and ``frailty`` of 1 / (TPOT target * expected tokens): one second of delay uses up that
    much of their targets."""

    __slots__ = ("_at_s", "_busy_s", "_window_s", "decoding", "frailty", "prompt_s", "urgency")

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._busy_s = 0.0
        self._at_s = 0.0
        self.prompt_s = 0.0
        self.decoding = 0
        self.urgency = 0.0
        self.frailty = 0.0

    def dispatched(self, now_s: float, prefill_s: float) -> None:
        """A prompt of that many seconds goes there."""
        self._busy_s = self._busy(now_s) + prefill_s
        self._at_s = now_s

    def share(self, now_s: float) -> float:
        """The part of its time that goes to prompts: those dispatched in the last window, weighted
        exponentially towards now; at most 0.9."""
        return min(_MOST_SHARE, self._busy(now_s) / self._window_s)

    def _busy(self, now_s: float) -> float:
        return self._busy_s * math.exp(-max(0.0, now_s - self._at_s) / self._window_s)

    def harm(self, step_s: float, delay_s: float, power: float) -> float:
        """What it costs the answers under way, together, when each waits ``delay_s`` once more;
        ``step_s``: seconds per token without that. All are taken to be like their mean."""
        count = self.decoding
        before = step_s * self.urgency / count
        after = before + delay_s * self.frailty / count
        return count * (lateness(after, power) - lateness(before, power))

    def join(self, slo: Slo, tokens: int) -> None:
        """An answer of that many tokens is to be generated there."""
        self._change(1, slo, tokens)

    def leave(self, slo: Slo, tokens: int) -> None:
        """It is over; the same arguments as when it joined."""
        self._change(-1, slo, tokens)

    def _change(self, sign: int, slo: Slo, tokens: int) -> None:
        self.decoding += sign
        if not self.decoding:  # Sums of fractions would keep a rest.
            self.urgency = self.frailty = 0.0
            return
        self.urgency += sign / slo.tpot_s
        self.frailty += sign / (slo.tpot_s * max(1, tokens))


class PaceBook:
    """All replicas of one model. ``steps`` are the fits of steps without prompts (TPOT alone)."""

    def __init__(self, window_s: float = 10.0) -> None:
        self._window_s = window_s
        self._replicas: dict[str, ReplicaPace] = {}
        self.steps = LatencyBook()

    def of(self, replica_id: str) -> ReplicaPace:
        """What is known of a replica."""
        found = self._replicas.get(replica_id)
        if found is None:
            found = self._replicas[replica_id] = ReplicaPace(self._window_s)
        return found

    def answered(self, replica_id: str, outlook: Outlook, step_s: float, tokens: int) -> None:
        """``tokens`` tokens came every ``step_s`` seconds, prompts taken out."""
        self.steps.finished(replica_id, outlook, step_s, tokens)

    def forget(self, replica_id: str) -> None:
        """The replica is gone."""
        self._replicas.pop(replica_id, None)
        self.steps.forget(replica_id)
