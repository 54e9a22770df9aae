"""What the replicas of ``weir bench decision`` hold, and the prompts it asks about."""

from __future__ import annotations

import random
from dataclasses import dataclass

from router.hashing import KEY_BITS

BLOCK_TOKENS = 16
PROMPT_BLOCKS = 512
TRUNK_BLOCKS, TENANT_BLOCKS, SESSION_BLOCKS = 16, 112, 320
TENANTS = 200
CONTINUED = 0.7


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    replicas: int
    blocks: int
    decisions: int
    rounds: int


class World:
    """The same sessions and prompts for every system. Hashes are random numbers: what makes them
    (see the hashing rows) does not matter to a decision."""

    def __init__(self, size: Size, seed: int) -> None:
        self.size = size
        self._rng = random.Random(f"world {seed}")
        self._trunk = self._blocks(TRUNK_BLOCKS)
        self._tenants = [self._trunk + self._blocks(TENANT_BLOCKS) for _ in range(TENANTS)]
        self.replicas = tuple(f"replica-{n}" for n in range(size.replicas))
        #: replica → the sessions it holds, oldest first
        self.sessions = {name: self._sessions() for name in self.replicas}

    def prompts(self, count: int, seed: int) -> list[tuple[int, ...]]:
        """Prompts of 512 blocks."""
        self._rng = rng = random.Random(f"prompts {seed}")
        drawn = []
        for _ in range(count):
            if rng.random() < CONTINUED:
                known = rng.choice(self.sessions[rng.choice(self.replicas)])
            else:
                known = rng.choice(self._tenants)
            drawn.append(known + self._blocks(PROMPT_BLOCKS - len(known)))
        return drawn

    def _blocks(self, count: int) -> tuple[int, ...]:
        return tuple(self._rng.getrandbits(KEY_BITS) for _ in range(count))

    def _sessions(self) -> list[tuple[int, ...]]:
        """As many sessions as fill a replica, shared blocks counted once."""
        free, seen = self.size.blocks - TRUNK_BLOCKS, set[int]()
        sessions: list[tuple[int, ...]] = []
        while True:
            tenant = self._rng.randrange(TENANTS)
            free -= SESSION_BLOCKS + (TENANT_BLOCKS if tenant not in seen else 0)
            if free < 0:
                return sessions
            seen.add(tenant)
            sessions.append(self._tenants[tenant] + self._blocks(SESSION_BLOCKS))
