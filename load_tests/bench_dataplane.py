"""What the data plane costs: weir against the server that it fronts, and against its peers.

Engine behind it (same model, engine settings and prompts for all; 32 output tokens, about 100
prompt tokens, all distinct):

  a1  vLLM's own server in its default mode
  a2  vLLM's own server in the mode of weir's replica (VLLM_ENABLE_V1_MULTIPROCESSING=0)
  b   weir with one replica and everything on, through its front door
      (these three also with a tool on offer, under a JSON schema and with log-probabilities; weir
      also in OpenAI's Responses, each kept, and in Anthropic's Messages)
  c   Ray Serve LLM's default path (build_openai_app, one replica)

Gateway alone (before an upstream that emits 32 chunks at 5 ms intervals):

  none, relay (20 lines of ASGI), weir (also in Responses and Messages), sglang (router),
  litellm (proxy)

``--in-turns``: those with an engine are all up at once, and all but the one that is measured are
stopped (SIGSTOP), so that each load's windows follow one another within seconds. For machines whose
speed changes from minute to minute.

Each round starts each system afresh, alone on the machine, and ends it before the next starts: an
idle Ray cluster or a polling engine would take CPU time from the one that is measured. Rounds are
interleaved (A B C, B C A, ...); figures are medians over rounds, ratios are taken within a round.
The generator's own CPU time is on the same cores and is reported. Everything is run as its makers
ship it: access logs and metrics stay on everywhere.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from load_tests.dataplane.measure import Pace, Prompts, Round, measure_round
from load_tests.dataplane.rows import hop_rows, kind_rows, marks, system_rows
from load_tests.dataplane.systems import System, all_systems
from load_tests.dataplane.turns import Turns
from load_tests.report import Report, bench_parser, emit, interleave
from load_tests.servers import StartError, Unavailable, engine_workload, start, unwind_on_sigterm
from load_tests.servers.choosing import chosen
from weir.errors import WeirError

NOTES = (
    "ratios and differences are taken within a round; everything else is a median over rounds",
    "a chunk is one output token; cost per request is what remains when its chunks are taken off",
)


FAILURES_TO_LEAVE_OUT = 2


class Bench:
    """Collects rounds; remembers why a system has none."""

    def __init__(self, prompts: Prompts, pace: Pace, keep_logs: Path | None) -> None:
        self.rounds: dict[str, dict[int, Round]] = {}
        self.missing: dict[str, str] = {}
        self._failures: Counter[str] = Counter()
        self._prompts = prompts
        self._pace = pace
        self._keep_logs = keep_logs

    def measure(self, number: int, system: System) -> None:
        """One system in one round. One that is not installed, or has failed twice, is left out."""
        if self._failures[system.key] >= FAILURES_TO_LEAVE_OUT:
            return
        started_s = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
                launches, target = system.launch(Path(folder))
                with start(launches, target, self._keep_logs) as server:
                    found = measure_round(server, self._prompts, number, self._pace, system.phases)
        except (StartError, Unavailable, WeirError) as error:
            absent = isinstance(error, Unavailable)
            self._failures[system.key] += FAILURES_TO_LEAVE_OUT if absent else 1
            self.missing[system.key] = str(error)
            say(f"round {number + 1}, {system.title}: {error}")
            say(getattr(error, "log_tail", ""))
            return
        self.rounds.setdefault(system.key, {})[number] = found
        full = found.phases["full"].figures
        seconds = time.monotonic() - started_s
        say(f"round {number + 1}, {system.title}: {full['req_per_s']:.1f} req/s ({seconds:.0f} s)")

    def measure_in_turns(self, systems: Sequence[System], rounds: int) -> None:
        """All systems at once, of which one at a time runs; what is missing stays so."""
        try:
            with Turns(systems, self._prompts, self._pace, self._keep_logs) as turns:
                for number in range(rounds):
                    for key, found in turns.round(number, say).items():
                        self.rounds.setdefault(key, {})[number] = found
        except (StartError, Unavailable, WeirError) as error:
            say(f"{error}\n{getattr(error, 'log_tail', '')}")
            self.missing |= {s.key: str(error) for s in systems if s.key not in self.rounds}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks, 2 for a wrong option."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        workload = engine_workload(options.model)
        systems = chosen(all_systems(workload, options.peers_venv), options.only)
    except (Unavailable, ValueError) as error:
        parser.error(str(error))
    unwind_on_sigterm()
    window_s = options.window_s or (2.0 if options.quick else 8.0)
    pace = Pace(1.0 if options.quick else 3.0, window_s)
    rounds = options.rounds or (1 if options.quick else 3)
    bench = Bench(Prompts(workload, options.seed), pace, options.keep_logs)
    if options.in_turns:
        systems = tuple(system for system in systems if system.kind == "engine")
        bench.measure_in_turns(systems, rounds)
    else:
        for kind in ("engine", "gateway"):
            group = [system for system in systems if system.kind == kind]
            for number, system in interleave(group, rounds):
                bench.measure(number, system)
    rows = system_rows(systems, bench.rounds, bench.missing)
    rows += kind_rows(systems, bench.rounds)
    rows += hop_rows(systems, bench.rounds)
    found = marks(bench.rounds, bench.missing)
    return emit(Report("dataplane", options.seed, rows, found, NOTES), options, argv)


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("dataplane", __doc__)
    parser.add_argument("--only", metavar="KEYS", help="e.g. a1,b (default: all)")
    parser.add_argument(
        "--in-turns", action="store_true", help="all up at once, all but one stopped"
    )
    parser.add_argument("--rounds", type=int, help="default 3, quick 1")
    parser.add_argument("--window-s", type=float, help="default 8, quick 2")
    parser.add_argument("--model", type=Path, help="a model's folder (default: the teacher)")
    parser.add_argument(
        "--peers-venv", type=Path, metavar="PYTHON", help="Python of the peers' environment"
    )
    parser.add_argument(
        "--keep-logs", type=Path, metavar="DIR", help="copy the servers' logs there"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
