"""Before a machine goes: what is waited for, and for how long."""

from __future__ import annotations

import subprocess
import time

from deployments.leaving import replicas_here, wait_while


class Clock:
    """Seconds that pass only while somebody pauses."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def pause(self) -> None:
        self.now += 0.5


def test_it_ends_as_soon_as_nothing_runs() -> None:
    clock, left = Clock(), iter([3, 2, 1, 0])
    assert wait_while(lambda: next(left) > 0, 60.0, clock.clock, clock.pause)
    assert clock.now == 101.5


def test_it_ends_when_the_time_is_over() -> None:
    clock = Clock()
    assert not wait_while(lambda: True, 3.0, clock.clock, clock.pause)
    assert clock.now == 103.0


def test_nothing_to_wait_for_takes_no_time() -> None:
    clock = Clock()
    assert wait_while(lambda: False, 0.0, clock.clock, clock.pause)
    assert clock.now == 100.0


def test_replicas_are_told_by_what_serve_calls_their_processes() -> None:
    before = replicas_here()
    title = "ray::ServeReplica:weir:model-m.handle"
    replica = subprocess.Popen(["bash", "-c", f"exec -a '{title}' sleep 60"])
    other = subprocess.Popen(["bash", "-c", "exec -a 'ray::IDLE ServeReplica' sleep 60"])
    try:
        end = time.monotonic() + 10
        while replicas_here() == before and time.monotonic() < end:
            time.sleep(0.05)
        assert replicas_here() == before + 1
    finally:
        for each in (replica, other):
            each.kill()
            each.wait()
