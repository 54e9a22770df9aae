"""Which LoRA adapters replicas have loaded, and what it costs to have one where it is not.

A replica tells its adapters when they change; a dispatch from here counts at once, as if the
replica had loaded the adapter then, so that a burst of requests follows its first one. So does the
end of one: which slots are in use decides how long a cold adapter waits, and what a replica told of
that is as old as an answer is long. Loads are charged like prefill, which is what they delay: in
tokens, by the time a load takes there and by the speed of prefill. S-LoRA (Sheng et al., MLSys
2024) keeps many adapters beside few slots in the same way; the choice of the replica is left open
there.

Worth (``weir bench lora --virtual``, 50 adapters, 2 replicas of 8 slots, over round-robin): loads
per request 0.7; TTFT p99 1.35 where slots and loads are known as replicas tell them, 0.8 as here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

#: Of a load that no replica has told the time of yet.
USUAL_LOAD_S = 0.05
#: Seconds to prefill a token while nothing is known: 10,000 tokens a second.
USUAL_TOKEN_S = 1e-4
#: A load into full slots takes a place from an adapter that will have to be loaded again, and that
#: of another one in turn.
EVICTION = 3.0
#: Where all slots are in use, somebody's answer must end first: many loads' time.
ALL_BUSY = 64.0


@dataclass(slots=True)
class _Held:
    """Of one replica. ``loaded``: the least recently used first (a dict, for its order).
    ``elsewhere``: in use, as it told, and not by what this gateway has there. ``flights``: requests
    that this gateway has there, by adapter. ``loading``: sent there cold, without an output yet."""

    slots: int = 0
    loaded: dict[str, None] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    flights: dict[str, int] = field(default_factory=dict)
    loading: set[str] = field(default_factory=set)
    load_s: float = 0.0
    loads: int = 0

    def is_busy(self, adapter: str) -> bool:
        """Whether somebody uses it."""
        return adapter in self.flights or adapter in self.elsewhere

    def busy(self) -> int:
        """How many adapters are in use, or wait for a slot."""
        return len(self.flights.keys() | self.elsewhere)


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
        held = self._replicas.setdefault(replica_id, _Held())
        held.slots, held.load_s, held.loads = slots, load_s, loads
        held.loaded = dict.fromkeys(loaded)
        held.elsewhere = {key for key in busy if key not in held.flights}
        held.loading.difference_update(loaded)

    def dispatched(self, replica_id: str, adapter: str) -> None:
        """A request with that adapter goes there now."""
        held = self._replicas.setdefault(replica_id, _Held())
        if adapter not in held.loaded and not held.is_busy(adapter):
            held.loading.add(adapter)
        held.flights[adapter] = held.flights.get(adapter, 0) + 1
        held.elsewhere.discard(adapter)
        if not held.slots:
            return  # it has told nothing yet
        if adapter in held.loaded:
            del held.loaded[adapter]
        elif len(held.loaded) >= held.slots:
            oldest = next((key for key in held.loaded if not held.is_busy(key)), None)
            if oldest is None:
                return  # it waits, or is refused
            del held.loaded[oldest]
        held.loaded[adapter] = None

    def started(self, replica_id: str, adapter: str) -> None:
        """A request with that adapter has its first output there."""
        held = self._replicas.get(replica_id)
        if held is not None:
            held.loading.discard(adapter)

    def released(self, replica_id: str, adapter: str) -> None:
        """A request with that adapter is over there."""
        held = self._replicas.get(replica_id)
        if held is None or adapter not in held.flights:
            return  # the replica left meanwhile
        held.flights[adapter] -= 1
        if not held.flights[adapter]:
            del held.flights[adapter]
            held.loading.discard(adapter)

    def forget(self, replica_id: str) -> None:
        """A replica left."""
        self._replicas.pop(replica_id, None)

    def loaded(self, replica_id: str) -> tuple[str, ...]:
        """Keys, the least recently used first."""
        held = self._replicas.get(replica_id)
        return tuple(held.loaded) if held is not None else ()

    def loads(self) -> dict[str, int]:
        """Of each replica that has slots, how often it has loaded an adapter."""
        return {name: held.loads for name, held in self._replicas.items() if held.slots}

    def work(self, adapter: str, ids: Sequence[str], token_s: float) -> list[float]:
        """What it costs to have the adapter, per replica of ``ids``, in tokens of prefill.
        ``token_s``: seconds to prefill one (0: not known)."""
        per_second = 1.0 / (token_s or USUAL_TOKEN_S)
        return [self._loads_s(adapter, replica_id) * per_second for replica_id in ids]

    def _loads_s(self, adapter: str, replica_id: str) -> float:
        held = self._replicas.get(replica_id)
        if held is None or not held.slots:
            return USUAL_LOAD_S
        load_s, busy = held.load_s or USUAL_LOAD_S, held.is_busy(adapter)
        # An engine stands still for every load.
        loads = float(len(held.loading))
        ahead = held.busy() + (not busy) - held.slots
        if ahead > 0 and not (busy and adapter in held.loaded):
            loads += ALL_BUSY * ahead
        elif not busy and adapter not in held.loaded:
            loads += 1.0 if len(held.loaded) < held.slots else 1.0 + EVICTION
        return loads * load_s
