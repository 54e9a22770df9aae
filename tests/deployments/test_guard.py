"""What the supervisor looks after, in place of real processes."""

from __future__ import annotations

import threading

from deployments.guard import Guard
from deployments.haproxy_config import Target


class Part:
    """Runs until it is told to end."""

    def __init__(self) -> None:
        self.starts = 0
        self.started = threading.Semaphore(0)
        self._ended = threading.Semaphore(0)

    def start(self) -> None:
        self.starts += 1
        self.started.release()

    def wait(self) -> None:
        assert self._ended.acquire(timeout=10)

    def end(self) -> None:
        self._ended.release()


class Front(Part):
    """Of nothing."""

    def route_to(self, targets: list[Target]) -> None:
        """Nobody asks for anything."""


def test_each_part_that_ends_is_started_again_until_all_stops() -> None:
    front, other, again = Front(), Part(), []
    guard = Guard(list, front, again.append)  # type: ignore[arg-type]
    guard.watch("other", other)
    guard.start()
    for _ in range(2):
        other.end()
        assert other.started.acquire(timeout=10)
    front.end()
    assert front.started.acquire(timeout=10)
    guard.stop()
    front.end()
    other.end()
    assert not other.started.acquire(timeout=0.2)
    assert (front.starts, other.starts) == (1, 2)
    assert sorted(again) == ["HAProxy", "other", "other"]
