"""Starting the servers that benches measure, and reading what they cost.

Each server is one or more processes on loopback ports of our choosing, found again by a mark in
their environment, bounded in start-up time, and ended together.
"""

from load_tests.servers.accounting import Accounts, CpuReading, cpu_between, memory_by_role
from load_tests.servers.process import (
    Launch,
    Started,
    StartError,
    Unavailable,
    free_port,
    http_ready,
    start,
    unwind_on_sigterm,
)
from load_tests.servers.workload import EngineWorkload, engine_workload

__all__ = [
    "Accounts",
    "CpuReading",
    "EngineWorkload",
    "Launch",
    "StartError",
    "Started",
    "Unavailable",
    "cpu_between",
    "engine_workload",
    "free_port",
    "http_ready",
    "memory_by_role",
    "start",
    "unwind_on_sigterm",
]
