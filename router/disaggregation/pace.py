"""How prefill and decode on one replica slow each other down: what is measured of it, per replica.

A step that computes part of a prompt takes that much longer for every sequence that decodes. So a
replica that spends the share *p* of its time on prompts puts out tokens every ``step / (1 - p)``
seconds, ``step`` being what a step without a prompt takes. The latter is learned from answers with
the time taken out that prompts took meanwhile, so that what is learned of a replica while it
computes prompts still holds when it does not, and the other way round.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from router.latency import LatencyBook, LatencyParams
from router.ledger import Outlook

#: Beyond that a replica is taken to do nothing but prompts.
_MOST_SHARE = 0.9
#: What prompts took is a share of no less time than that.
_LEAST_SEEN_S = 1.0
#: Answers between two estimates of their spread.
_ESTIMATE_EVERY = 16


@dataclass(frozen=True, slots=True)
class Slo:
    """Seconds to the first token, from arrival; seconds per later token, on average."""

    ttft_s: float = 10.0
    tpot_s: float = 0.1


@dataclass(frozen=True, slots=True)
class Prices:
    """What lateness costs. A latency of ``ratio`` times its target costs ``ratio ** power`` up to
    the target, so what is early costs next to nothing; from there on it rises by ``late`` per
    target, so what cannot be in time does not cost others theirs. ``others``: what the lateness of
    the answers under way weighs (1: as one's own), ``waiting``: that of who waits in the gateway.
    ``work``: what expected work costs, the time that it takes being counted in TTFT targets.
    ``step_tokens``: prompt tokens that an engine computes in one step at most, where it does not
    say so itself; no token waits for more than that. ``gap_tokens``: one gap as long as a step with
    a prompt costs an answer of so many tokens as much as if all of its tokens took that long (100:
    every hundredth gap decides, as it does of a 99th percentile; 0: only means count)."""

    power: float = 4.0
    late: float = 2.0
    others: float = 2.0
    waiting: float = 0.1
    work: float = 0.1
    step_tokens: int = 2048
    gap_tokens: float = 0.1

    def lateness(self, ratio: float) -> float:
        """What a latency costs that is ``ratio`` times its target."""
        if ratio <= 1.0:
            return math.pow(max(0.0, ratio), self.power)
        return 1.0 + self.late * (ratio - 1.0)


class LengthSpread:
    """How far answers are from their expected length: actual over expected, as the means of four
    equally large parts of the last answers. A delay is spread over an answer's tokens, so it is the
    short ones that it makes late, and a mean length hides them."""

    __slots__ = ("_new", "_seen", "in_flight", "parts")

    def __init__(self, remembered: int = 128) -> None:
        self._seen: deque[float] = deque(maxlen=remembered)
        self._new = 0
        self.parts: tuple[float, ...] = (1.0,)
        #: How much of the answers under way at an instant each part is: long ones are longer there.
        self.in_flight: tuple[float, ...] = (1.0,)

    def observe(self, expected_tokens: int, tokens: int) -> None:
        """An answer ended."""
        self._seen.append(max(1, tokens) / max(1, expected_tokens))
        self._new += 1
        if self._new >= _ESTIMATE_EVERY and len(self._seen) >= 2 * _ESTIMATE_EVERY:
            self._new = 0
            ordered = sorted(self._seen)
            size = len(ordered) // 4
            self.parts = tuple(sum(ordered[i * size : (i + 1) * size]) / size for i in range(4))
            total = sum(self.parts)
            self.in_flight = tuple(part / total for part in self.parts)


class ReplicaPace:
    """One replica. ``prompt_s``: seconds that its finished prompts took, summed up since ever;
    ``decoding``: answers under way or reserved there; ``urgency`` the sum of 1 / TPOT target over
    them, and ``frailty`` of 1 / (TPOT target * expected tokens): one second of delay uses up that
    much of their targets."""

    __slots__ = (
        "_at_s",
        "_busy_s",
        "_since_s",
        "_squared",
        "_window_s",
        "decoding",
        "frailty",
        "prompt_s",
        "urgency",
    )

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._busy_s = 0.0
        self._squared = 0.0
        self._at_s = 0.0
        self._since_s = math.inf  # when the first prompt went there
        self.prompt_s = 0.0
        self.decoding = 0
        self.urgency = 0.0
        self.frailty = 0.0

    def dispatched(self, now_s: float, prefill_s: float) -> None:
        """A prompt of that many seconds goes there."""
        self._since_s = min(self._since_s, now_s)
        keep = self._kept(now_s)
        self._busy_s = self._busy_s * keep + prefill_s
        self._squared = self._squared * keep + prefill_s * prefill_s
        self._at_s = now_s

    def share(self, now_s: float) -> float:
        """The part of its time that goes to prompts: those dispatched in the last window, weighted
        exponentially towards now; at most 0.9. Of a replica that has not had prompts for as long as
        that, the time since its first one counts: otherwise it would look idle at first."""
        seen_s = -self._window_s * math.expm1((self._since_s - now_s) / self._window_s)
        return min(_MOST_SHARE, self._busy_s * self._kept(now_s) / max(seen_s, _LEAST_SEEN_S))

    def sums(self, now_s: float) -> tuple[float, float]:
        """Over the prompts that share counts: their seconds, and the squares of these."""
        keep = self._kept(now_s)
        return self._busy_s * keep, self._squared * keep

    def _kept(self, now_s: float) -> float:
        return math.exp(-max(0.0, now_s - self._at_s) / self._window_s)

    def harm(
        self, step_s: float, delay_s: float, longest_s: float, prices: Prices, spread: LengthSpread
    ) -> float:
        """What it costs the answers under way, together, when each waits ``delay_s`` once more;
        ``step_s``: seconds per token without that, ``longest_s``: at most. Targets are taken to be
        like their mean."""
        count = self.decoding
        before = step_s * self.urgency / count
        most = max(before, longest_s * self.urgency / count)
        later = delay_s * self.frailty / count
        after = sum(
            weight * prices.lateness(min(most, before + later / part))
            for weight, part in zip(spread.in_flight, spread.parts, strict=True)
        )
        return count * (after - prices.lateness(before))

    def gap_harm(self, step_s: float, longest_s: float, gaps: float, prices: Prices) -> float:
        """What it costs the answers under way, together, that each has ``gaps`` gaps of
        ``longest_s`` instead of ``step_s``, however little that changes their mean. Targets and
        lengths are taken to be like their means."""
        urgency = self.urgency / self.decoding
        share = min(1.0, prices.gap_tokens * gaps * self.frailty / self.urgency)
        late = prices.lateness(longest_s * urgency) - prices.lateness(step_s * urgency)
        return self.decoding * share * max(0.0, late)

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
        self.steps = LatencyBook(LatencyParams(rising=True))
        self.spread = LengthSpread()

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
