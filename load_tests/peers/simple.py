"""Round robin, random, power of two choices, least outstanding: the baselines everybody has.

Power of two choices (Mitzenmacher 2001) is Ray Serve's default request router: two replicas at
random, the one with the shorter queue. The count is the gateway's own in-flight requests, which
is what Ray's replica queue-length cache holds.
"""

from __future__ import annotations

from load_tests.sim.request import SimRequest
from load_tests.sim.system import BaseSystem, Fleet


class RoundRobin(BaseSystem):
    """The next replica in turn."""

    name = "round-robin"

    def start(self, fleet: Fleet) -> None:
        """Begin with the first."""
        super().start(fleet)
        self._turn = 0

    def arrive(self, request: SimRequest) -> None:
        """Dispatch at once."""
        self.fleet.dispatch(request, self._turn % self.replicas)
        self._turn += 1


class CountingSystem(BaseSystem):
    """A system that counts its own requests in flight per replica, and chooses at once."""

    def start(self, fleet: Fleet) -> None:
        """Nothing is in flight."""
        super().start(fleet)
        self.in_flight = [0] * self.replicas

    def choose(self, request: SimRequest) -> int:
        """The replica."""
        raise NotImplementedError

    def arrive(self, request: SimRequest) -> None:
        """Dispatch at once."""
        replica = self.choose(request)
        self.in_flight[replica] += 1
        self.fleet.dispatch(request, replica)

    def finished(self, request: SimRequest) -> None:
        """One less."""
        self.in_flight[request.replica] -= 1

    def least(self) -> int:
        """The replica with the fewest in flight, ties at random."""
        fewest = min(self.in_flight)
        return self.fleet.rng.choice([i for i, n in enumerate(self.in_flight) if n == fewest])


class PowerOfTwo(CountingSystem):
    """Two at random, the one with fewer in flight."""

    name = "power-of-two"

    def choose(self, request: SimRequest) -> int:
        """One of two."""
        if self.replicas < 2:
            return 0
        first, second = self.fleet.rng.sample(range(self.replicas), 2)
        return first if self.in_flight[first] <= self.in_flight[second] else second


class LeastRequests(CountingSystem):
    """The fewest in flight."""

    name = "least-requests"

    def choose(self, request: SimRequest) -> int:
        """The minimum."""
        return self.least()
