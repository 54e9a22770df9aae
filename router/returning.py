"""How much of what comes in came before: whether keeping prefixes cached is worth anything.

Independent of what the caches still hold, so it does not fall when they thrash. A chained block
hash names its whole prefix, so a few depths per prompt are enough: a prompt of which depth *d* was
seen returns with at least *d* blocks.

What returned and is cached nowhere any longer is lost: the one sign of thrashing that does not
depend on how busy the fleet is or how long its prompts are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


def _depths() -> tuple[int, ...]:
    """1, 2, 3, 4, 6, 8, 12, 16, …: what lies between two of them is missed."""
    powers = [1 << power for power in range(21)]
    return tuple(sorted({*powers, *(3 * power // 2 for power in powers[1:])}))


class ReturnMeter:
    """``share``: the part of prompt tokens that returned lately, weighted towards the last
    ``window_tokens``; 0 until a tenth of them was seen.

    Remembers the last ``remembered`` prefixes that were used, and at most as many again: they are
    kept in two sets, and when the one in use is full it replaces the older one. An order by last
    use costs a decision three times as much, and forgets no better.
    """

    __slots__ = (
        "_came",
        "_depths",
        "_older",
        "_remembered",
        "_returned",
        "_seen",
        "window_tokens",
    )

    def __init__(self, window_tokens: float = 4e6, remembered: int = 65_536) -> None:
        self.window_tokens = window_tokens
        self._remembered = remembered
        self._depths = _depths()
        self._seen: set[int] = set()
        self._older: set[int] = set()
        self._came = 0.0
        self._returned = 0.0

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self._returned / self._came if self._came >= self.window_tokens / 10 else 0.0

    def observe(self, hashes: Sequence[int], prompt_tokens: int) -> float:
        """A prompt came; how many of its tokens had come before. About a look into a set per
        doubling of what of it is new."""
        blocks = len(hashes)
        keep = max(0.0, 1.0 - prompt_tokens / self.window_tokens)
        self._came = self._came * keep + prompt_tokens
        self._returned *= keep
        if not blocks:
            return 0.0
        depths, seen, older = self._depths, self._seen, self._older
        # Whatever put a block into a set put all depths before it into the same one.
        count = known = bisect_right(depths, blocks)
        while known:
            block = hashes[depths[known - 1] - 1]
            if block in seen or block in older:
                break
            known -= 1
        in_use = known and block in seen
        seen.update([hashes[depth - 1] for depth in depths[known if in_use else 0 : count]])
        if len(seen) >= self._remembered:
            self._older, self._seen = seen, set()
        if not known:
            return 0.0
        returned = prompt_tokens * depths[known - 1] / blocks
        self._returned += returned
        return returned


class LossMeter:
    """``share``: the part of prompt tokens that came before and is cached nowhere any longer,
    weighted towards the last ``window_tokens``; 0 until a tenth of them was seen.

    ``thrashing`` from a share of ``high`` until it is below ``low``. The two are far apart because
    the cure hides the illness: with prompts held back, little is lost, and let in again at once
    they would thrash again (docs/simulator.md has the shares at each load).
    """

    __slots__ = ("_came", "_high", "_lost", "_low", "thrashing", "window_tokens")

    def __init__(self, window_tokens: float = 16e6, high: float = 0.08, low: float = 0.02) -> None:
        self.window_tokens = window_tokens
        self._high = high
        self._low = low
        self._came = 0.0
        self._lost = 0.0
        self.thrashing = False

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self._lost / self._came if self._came >= self.window_tokens / 10 else 0.0

    def observe(self, prompt_tokens: int, returned: float, cached: float) -> None:
        """A prompt came, of which ``returned`` tokens had come before and ``cached`` are."""
        keep = max(0.0, 1.0 - prompt_tokens / self.window_tokens)
        self._came = self._came * keep + prompt_tokens
        self._lost = self._lost * keep + max(0.0, returned - cached)
        self.thrashing = self.share >= (self._low if self.thrashing else self._high)


#: Caches are spared only where at least this part of the prompts' tokens returns.
WORTH_KEEPING = 0.5
#: Windows in parts of all the KV that the fleet has: what comes in within a fraction of the time in
#: which the caches turn over says whether prompts return, within several of them whether they are
#: lost in between.
_RETURN_WINDOW = 0.5
_LOSS_WINDOW = 2.0


class CacheUse:
    """Both meters of one fleet, whose windows grow with its KV capacity."""

    def __init__(self) -> None:
        self._returning = ReturnMeter()
        self._losing = LossMeter()

    def resize(self, capacity_tokens: int) -> None:
        """The fleet holds that many tokens in its KV caches (0: not known, nothing changes)."""
        if capacity_tokens > 0:
            self._returning.window_tokens = _RETURN_WINDOW * capacity_tokens
            self._losing.window_tokens = _LOSS_WINDOW * capacity_tokens

    def observe(self, hashes: Sequence[int], prompt_tokens: int, cached_tokens: int) -> None:
        """A prompt came, of which the best holder has ``cached_tokens``; once per request."""
        if hashes:
            returned = self._returning.observe(hashes, prompt_tokens)
            self._losing.observe(prompt_tokens, returned, cached_tokens)

    @property
    def keeping(self) -> bool:
        """Whether enough of what comes in came before for caches to be worth sparing."""
        return self._returning.share >= WORTH_KEEPING

    @property
    def thrashing(self) -> bool:
        """Whether prefixes that come back are lost in between (:class:`LossMeter`)."""
        return self._losing.thrashing
