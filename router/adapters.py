"""Which LoRA adapters replicas have loaded, and what it costs to have one where it is not.

A replica tells its adapters when they change; a dispatch from here counts at once, as if the
replica had loaded the adapter then, so that a burst of requests follows its first one. Loads are
charged like prefill, which is what they delay: in tokens, by the time a load takes there and by the
speed of prefill. S-LoRA (Sheng et al., MLSys 2024) keeps many adapters beside few slots in the same
way; the choice of the replica is left open there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

#: Of a load that no replica has told the time of yet.
USUAL_LOAD_S = 0.05
#: Seconds to prefill a token while nothing is known: 10,000 tokens a second.
USUAL_TOKEN_S = 1e-4
#: A load into full slots takes a place from an adapter that will have to be loaded again.
EVICTION = 1.0
#: Where all slots are in use, somebody's answer must end first: many loads' time.
ALL_BUSY = 64.0


@dataclass(slots=True)
class _Held:
    """Of one replica. ``loaded``: the least recently used first (a dict, for its order)."""

    slots: int
    loaded: dict[str, None] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    load_s: float = 0.0
    loads: int = 0


class AdapterBook:
    """One model's replicas; a replica that has told nothing holds nothing and has room."""

    def __init__(self) -> None:
        self._replicas: dict[str, _Held] = {}

    def told(
        self,
        replica_id: str,
        loaded: Sequence[str],
        busy: Sequence[str],
        slots: int,
        load_s: float,
        loads: int = 0,
    ) -> None:
        """A replica's own word: keys, the least recently used first, those in use, how long a load
        takes and how many there were."""
        held = _Held(slots, dict.fromkeys(loaded), frozenset(busy), load_s, loads)
        self._replicas[replica_id] = held

    def dispatched(self, replica_id: str, adapter: str) -> None:
        """A request with that adapter goes there now."""
        held = self._replicas.get(replica_id)
        if held is None:
            return
        if adapter in held.loaded:
            del held.loaded[adapter]
        elif len(held.loaded) >= held.slots:
            oldest = next((key for key in held.loaded if key not in held.busy), None)
            if oldest is None:
                return  # it waits, or is refused
            del held.loaded[oldest]
        held.loaded[adapter] = None

    def forget(self, replica_id: str) -> None:
        """A replica left."""
        self._replicas.pop(replica_id, None)

    def loaded(self, replica_id: str) -> tuple[str, ...]:
        """Keys, the least recently used first."""
        held = self._replicas.get(replica_id)
        return tuple(held.loaded) if held is not None else ()

    def loads(self) -> dict[str, int]:
        """Of each replica that has slots, how often it has loaded an adapter."""
        return {replica_id: held.loads for replica_id, held in self._replicas.items()}

    def work(self, adapter: str, ids: Sequence[str], token_s: float) -> list[float]:
        """What it costs to have the adapter, per replica of ``ids``, in tokens of prefill.
        ``token_s``: seconds to prefill one (0: not known)."""
        per_second = 1.0 / (token_s or USUAL_TOKEN_S)
        return [self._loads_s(adapter, replica_id) * per_second for replica_id in ids]

    def _loads_s(self, adapter: str, replica_id: str) -> float:
        held = self._replicas.get(replica_id)
        if held is None:
            return USUAL_LOAD_S
        if adapter in held.loaded:
            return 0.0
        load_s = held.load_s or USUAL_LOAD_S
        if len(held.loaded) < held.slots:
            return load_s
        return load_s * (ALL_BUSY if len(held.busy) >= held.slots else 1.0 + EVICTION)
