"""Simulated time and a simulated network: many processes of weir in one, fast and repeatable.

:mod:`weir.testing.virtual_time` has the event loop, :mod:`weir.testing.processes` what can be
frozen or killed, :mod:`weir.testing.network` the connections between them, and
:mod:`weir.testing.schedules` seeded sequences of faults.
"""
