"""Traces, load generators, the simulator, peers and the benches behind ``weir bench``."""
