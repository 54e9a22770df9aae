"""Fitting the simulator's step times to a real vLLM engine, and saying how wrong they are."""
