"""A switch that turns on at once and off late."""

from __future__ import annotations

from collections.abc import Callable


class Hysteresis:
    """On when the value reaches ``enter``; off when it is down to ``leave`` and ``dwell_s`` have
    passed since it went on. So it goes on at most once per ``dwell_s``, whatever the value does
    (a Schmitt trigger with a minimum pulse)."""

    def __init__(
        self, enter: float, leave: float, dwell_s: float, clock: Callable[[], float]
    ) -> None:
        if leave >= enter:
            raise ValueError(f"leave ({leave}) must be below enter ({enter})")
        self._enter, self._leave, self._dwell_s = enter, leave, dwell_s
        self._clock = clock
        self._on_since_s: float | None = None

    @property
    def on(self) -> bool:
        return self._on_since_s is not None

    def update(self, value: float) -> bool:
        """Take a new value in; whether the switch is on now."""
        now = self._clock()
        if self._on_since_s is None:
            if value >= self._enter:
                self._on_since_s = now
        elif value <= self._leave and now - self._on_since_s >= self._dwell_s:
            self._on_since_s = None
        return self.on
