"""Systems that are all up at once, of which one at a time runs.

Where a machine's cores change their speed from minute to minute, as another guest of the same host
makes them do, systems that are started one after the other meet different machines. Here each
load's windows follow one another within seconds: whoever is not measured is stopped (SIGSTOP), and
takes no CPU time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from load_tests.dataplane.measure import (
    FULL,
    PHASES,
    Measured,
    Pace,
    Phase,
    Prompts,
    Round,
    first_answer,
    idle_cpu_share,
    measure_phase,
)
from load_tests.dataplane.systems import System
from load_tests.servers import Started, memory_by_role, start
from load_tests.servers.accounting import Memory

_SETTLE_S = 0.5


class Turns:
    """To be entered; then :meth:`round` measures everybody in turn."""

    def __init__(
        self,
        systems: Sequence[System],
        prompts: Prompts,
        pace: Pace,
        keep_logs: Path | None = None,
    ) -> None:
        self._systems = {system.key: system for system in systems}
        self._prompts = prompts
        self._pace = pace
        self._keep_logs = keep_logs
        self._up: dict[str, Started] = {}
        self._ready_s: dict[str, float] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Turns:
        """Start them, each alone.

        Raises:
            StartError: one does not come up, or answers nothing.
            Unavailable: one cannot be had here.
        """
        with contextlib.ExitStack() as stack:
            for key, system in self._systems.items():
                folder = tempfile.TemporaryDirectory(prefix="weir-bench-")
                launches, target = system.launch(Path(stack.enter_context(folder)))
                server = stack.enter_context(start(launches, target, self._keep_logs))
                # Stopped processes cannot be asked to end.
                stack.callback(_signal, server, signal.SIGCONT)
                self._ready_s[key] = first_answer(server, self._prompts)
                self._up[key] = server
                _signal(server, signal.SIGSTOP)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def round(self, number: int, tell: Callable[[str], None]) -> dict[str, Round]:
        """All loads of all systems, load by load; who is first changes from load to load."""
        found: dict[str, dict[str, Measured]] = {key: {} for key in self._systems}
        idle, memory = {}, dict[str, Mapping[str, Memory]]()
        for key, server in self._up.items():
            with _running(server):
                idle[key] = idle_cpu_share(server, self._pace)
        for place, phase in enumerate(PHASES):
            asked = [key for key, system in self._systems.items() if phase in system.phases]
            if not asked:
                continue
            shift = (number + place) % len(asked)
            for key in asked[shift:] + asked[:shift]:
                with _running(self._up[key]) as server:
                    found[key][phase.name] = self._measure(server, number, phase)
                    if phase is FULL:
                        memory[key] = memory_by_role(server.pids())
            told = {key: found[key][phase.name].figures["req_per_s"] for key in asked}
            tell(f"round {number + 1}, {phase.name}: {told}")
        return {
            key: Round(phases, memory.get(key, {}), idle[key], self._ready_s[key])
            for key, phases in found.items()
        }

    def _measure(self, server: Started, number: int, phase: Phase) -> Measured:
        return measure_phase(server, phase, self._prompts.bodies(number, phase), self._pace)


@contextlib.contextmanager
def _running(server: Started) -> Iterator[Started]:
    _signal(server, signal.SIGCONT)
    time.sleep(_SETTLE_S)
    try:
        yield server
    finally:
        _signal(server, signal.SIGSTOP)


def _signal(server: Started, number: signal.Signals) -> None:
    for pid in server.pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
