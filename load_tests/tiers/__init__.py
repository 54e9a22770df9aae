"""KV tiers under a working set that the engine's cache cannot hold: what ``weir bench tiers`` is
made of."""
