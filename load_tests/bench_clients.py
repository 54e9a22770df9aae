"""Other people's clients against weir: which of their capabilities work, client by client.

Each client is used unmodified, in a small way that its documentation shows, in an environment of
its own (made once, in --home). Tools are forced by tool_choice with a schema, so that the grammar
and not the small model decides whether the call is valid. The platform is the laptop profile on
free ports, or the one at --url. Coding agents get a platform with a longer context: their own
prompts are longer than the sample model's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from load_tests.clients.catalogue import (
    FILES,
    PROGRAM_PACKAGES,
    PROGRAM_TITLES,
    ProbeFile,
    clients,
)
from load_tests.clients.environments import DEFAULT_HOME, ready_environment, versions
from load_tests.clients.outcomes import FAILS, MODEL, Outcome, missing, read_outcomes, rows_of
from load_tests.clients.programs import PROGRAMS, Program, run_program
from load_tests.clients.server import Platform, own_platform
from load_tests.report import Mark, Report, Row, absent_row, bench_parser, emit
from load_tests.servers import StartError, Unavailable, unwind_on_sigterm

FILE_LIMIT_S = 900
NOTES = (
    "works: the client's own call ended as it does with the API's maker; cancel: the engine "
    "stopped soon after the client had left, by its own counters",
    "model: the server did its part and the small model did not; not applicable: the client or "
    "its API has no such thing",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks, 2 for a wrong option."""
    parser = _parser()
    options = parser.parse_args(argv)
    wanted = set(options.only.split(",")) if options.only else set()
    files = [f for f in FILES if not wanted or wanted & {c.key for c in f.clients}]
    programs = [p for p in PROGRAMS if not wanted or p.key in wanted]
    if not files and not programs:
        parser.error(f"--only: no client of these is known: {options.only}")
    unwind_on_sigterm()
    bench = _Bench(options.home.resolve(), options.keep_logs)
    bench.install([*(f.environment for f in files), *(p.environment for p in programs)])
    if options.install_only:
        return 0
    try:
        _run_all(bench, options, files, programs, wanted)
    except (StartError, Unavailable) as error:
        parser.exit(1, f"{error}\n")
    earlier = json.loads(options.keep.read_text("utf-8"))["rows"] if options.keep else []
    rows = with_earlier(bench.rows(), earlier)
    return emit(Report("clients", options.seed, rows, marks_of(rows), NOTES), options, argv)


def _run_all(
    bench: _Bench,
    options: argparse.Namespace,
    files: Sequence[ProbeFile],
    programs: Sequence[Program],
    wanted: set[str],
) -> None:
    if options.url:
        told = Platform(options.url.rstrip("/"), options.key, options.model, options.metrics_key)
        bench.try_all(told, files, programs, wanted)
        return
    short = [program for program in programs if not program.long_context]
    long = [program for program in programs if program.long_context]
    if files or short:
        with own_platform(keep_logs=options.keep_logs) as platform:
            bench.try_all(platform, files, short, wanted)
    if long:
        with own_platform(long_context=True, keep_logs=options.keep_logs) as platform:
            bench.try_all(platform, (), long, wanted)


class _Bench:
    """What has been tried so far."""

    def __init__(self, home: Path, keep_logs: Path | None) -> None:
        self._home = home
        self._keep_logs = keep_logs
        self._folders: dict[str, Path] = {}
        self._absent: dict[str, str] = {}
        self._outcomes: list[Outcome] = []
        self._rows: list[dict[str, Any]] = []
        self._versions: dict[str, str] = {}

    def install(self, names: Sequence[str | None]) -> None:
        """Make the environments; one that cannot be made is a reason in the report."""
        for name in dict.fromkeys(name for name in names if name):
            try:
                self._folders[name] = ready_environment(name, self._home)
            except Unavailable as error:
                self._absent[name] = str(error)

    def try_all(
        self,
        platform: Platform,
        files: Sequence[ProbeFile],
        programs: Sequence[Program],
        wanted: set[str],
    ) -> None:
        """Run the files of probes and the programs against one platform."""
        for file in files:
            if file.environment in self._absent:
                self._skip([client.key for client in file.clients], file.environment)
            else:
                self._try_file(file, platform, wanted)
        for program in programs:
            if program.environment in self._absent:
                self._skip([program.key], str(program.environment))
            else:
                self._try_program(program, platform)

    def _skip(self, keys: Sequence[str], environment: str) -> None:
        titles = {client.key: client.title for client in clients()} | PROGRAM_TITLES
        for key in keys:
            self._rows.append({"client": key, **absent_row(titles[key], self._absent[environment])})

    def _try_file(self, file: ProbeFile, platform: Platform, wanted: set[str]) -> None:
        folder = self._folders[file.environment]
        for client in file.clients:
            self._versions[client.key] = versions(file.environment, folder, client.packages)
        found = read_outcomes(_output(file, folder, platform))
        found += missing(file.expected(), found, "the process of the probes ended before")
        self._add([o for o in found if not wanted or o.client in wanted])

    def _try_program(self, program: Program, platform: Platform) -> None:
        folder = self._folders.get(program.environment or "", Path())
        if program.environment:
            packages = PROGRAM_PACKAGES[program.key]
            self._versions[program.key] = versions(program.environment, folder, packages)
        with tempfile.TemporaryDirectory(prefix="weir-client-") as place:
            self._add([run_program(program, platform, folder, Path(place))])
            if self._keep_logs is not None and (said := Path(place, "output.txt")).is_file():
                self._keep_logs.mkdir(parents=True, exist_ok=True)
                shutil.copy(said, self._keep_logs / f"{program.key}.txt")

    def _add(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes += outcomes
        for outcome in outcomes:
            print(f"{outcome.probe}: {outcome.kind} {outcome.detail}", file=sys.stderr, flush=True)

    def rows(self) -> list[dict[str, Any]]:
        """A row a client, libraries and programs each in a table of their own."""
        titles = {client.key: client.title for client in clients()} | PROGRAM_TITLES
        rows = [*rows_of(self._outcomes, self._versions, titles), *self._rows]
        for row in rows:
            row["table"] = "programs" if row["client"] in PROGRAM_TITLES else "libraries"
        return rows


def with_earlier(rows: Sequence[Row], earlier: Sequence[Row]) -> list[Row]:
    """``rows``, and of an earlier report those of clients that were not tried now, all in the
    order of the catalogue."""
    order = [*(client.key for client in clients()), *PROGRAM_TITLES]
    merged = {row["client"]: row for row in [*earlier, *rows]}
    return [merged[key] for key in order if key in merged]


def marks_of(rows: Sequence[Row]) -> list[Mark]:
    """How many attempts failed, and how many of them are the model's fault."""
    kinds = Counter(value for row in rows for value in row.values() if isinstance(value, str))
    return [
        Mark("attempts that fail", float(kinds[FAILS]), "", 0.0, "lower"),
        Mark("attempts that fail by the model's fault", float(kinds[MODEL]), "", 4.0, "lower"),
    ]


def _output(file: ProbeFile, folder: Path, platform: Platform) -> str:
    """What the probes printed. A process that takes too long is ended, and what it said counts."""
    env = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    env |= platform.environment()
    with tempfile.TemporaryDirectory(prefix="weir-client-") as place:
        env["HOME"] = place
        try:
            ended = subprocess.run(
                _command(file, folder),
                env=env,
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=FILE_LIMIT_S,
            )
        except subprocess.TimeoutExpired as error:
            return (error.stdout or b"").decode("utf-8", "replace")
    return ended.stdout.decode("utf-8", "replace")


def _command(file: ProbeFile, folder: Path) -> list[str]:
    if file.path.suffix == ".py":
        return [str(folder / "bin" / "python"), str(file.path)]
    # Node looks for packages beside the file that imports them.
    copied = folder / file.name
    copied.write_bytes(file.path.read_bytes())
    return ["node", str(copied)]


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("clients", __doc__)
    parser.add_argument(
        "--home", type=Path, default=DEFAULT_HOME, help="the environments' folder: %(default)s"
    )
    parser.add_argument(
        "--only", metavar="KEYS", help="e.g. openai-python-chat,curl (default: all)"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="an earlier report: its other clients stay"
    )
    parser.add_argument("--install-only", action="store_true", help="only make the environments")
    parser.add_argument("--url", metavar="URL", help="a running platform, without /v1")
    parser.add_argument("--key", default="", help="its tenant's key")
    parser.add_argument("--model", default="weir-teacher", help="its model (default %(default)s)")
    parser.add_argument("--metrics-key", default="", help="a key that may read its /metrics")
    parser.add_argument("--keep-logs", type=Path, metavar="DIR", help="copy logs there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
