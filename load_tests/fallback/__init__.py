"""Measurements of spilling: a routing simulation on public data, and the running platform."""
