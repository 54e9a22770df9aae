"""A circuit breaker around a pool of replicas (Nygard, Release It!, 2007): a pool that fails is
left alone for a while, then tried with one request at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from weir.settings.fallback import FailureSettings


class BreakerState(StrEnum):
    """``HALF_OPEN``: single requests find out whether the pool is back."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Pass:
    """Leave to use the pool; its holder says how it went, once. ``epoch`` tells verdicts on what
    was begun before the circuit last changed from those that count."""

    probe: bool
    epoch: int


class CircuitBreaker:
    """Closed until ``failures`` within ``window_s``. Then open for ``open_s``, doubled after each
    failed probe up to ``max_open_s``. Then half-open: one probe at a time, ``probes`` successes
    in a row close it, one failure opens it again. ``on_open`` is called at each opening.
    """

    def __init__(
        self,
        settings: FailureSettings,
        clock: Callable[[], float],
        on_open: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._on_open = on_open or (lambda: None)
        self._failures: deque[float] = deque()
        self._opened_s: float | None = None
        self._open_for_s = settings.open_s
        self._probing_since_s: float | None = None
        self._successes = 0
        self._epoch = 0

    @property
    def state(self) -> BreakerState:
        if self._opened_s is None:
            return BreakerState.CLOSED
        waited_s = self._clock() - self._opened_s
        return BreakerState.HALF_OPEN if waited_s >= self._open_for_s else BreakerState.OPEN

    def enter(self) -> Pass | None:
        """A pass for one request, or None: not now."""
        state = self.state
        if state is BreakerState.CLOSED:
            return Pass(False, self._epoch)
        if state is BreakerState.OPEN or self._probe_is_out():
            return None
        self._probing_since_s = self._clock()
        return Pass(True, self._epoch)

    def succeeded(self, given: Pass) -> None:
        """The pool answered."""
        if not self._counts(given) or not given.probe:
            return
        self._probing_since_s = None
        self._successes += 1
        if self._successes >= self._settings.probes:
            self._close()

    def failed(self, given: Pass) -> None:
        """The pool did not answer, and not because of the request."""
        if not self._counts(given):
            return
        if given.probe:
            self._open(min(2 * self._open_for_s, self._settings.max_open_s))
            return
        now = self._clock()
        self._failures.append(now)
        while self._failures[0] <= now - self._settings.window_s:
            self._failures.popleft()
        if len(self._failures) >= self._settings.failures:
            self._open(self._settings.open_s)

    def cancelled(self, given: Pass) -> None:
        """Nothing was found out (the client left): the next request may probe."""
        if self._counts(given) and given.probe:
            self._probing_since_s = None

    def trip(self) -> None:
        """Open at once: it is known that nobody is there."""
        if self._opened_s is None:
            self._open(self._settings.open_s)

    def retry_now(self) -> None:
        """Somebody is there again: probe without waiting. What a pool that keeps coming and going
        costs is bounded by who can call this: only a new member of the pool does."""
        if self._opened_s is not None:
            self._open_for_s = 0.0

    def _counts(self, given: Pass) -> bool:
        return given.epoch == self._epoch

    def _probe_is_out(self) -> bool:
        # A probe without an answer for that long blocks the next one no more.
        since = self._probing_since_s
        return since is not None and self._clock() - since < self._settings.max_open_s

    def _open(self, for_s: float) -> None:
        self._opened_s = self._clock()
        self._open_for_s = max(for_s, self._settings.open_s)
        self._change()
        self._on_open()

    def _close(self) -> None:
        self._opened_s = None
        self._open_for_s = self._settings.open_s
        self._change()

    def _change(self) -> None:
        self._failures.clear()
        self._probing_since_s = None
        self._successes = 0
        self._epoch += 1
