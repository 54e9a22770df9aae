"""Commands that run a module of the checkout: benchmarks, the simulator, training."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import weir
from weir.cli.child import run_python
from weir.cli.exits import CommandError, ExitCode

TRAINERS = {"adapter": "fallback.training.adapter", "teacher": "fallback.training.teacher"}


def checkout_root() -> Path:
    """The checkout that this ``weir`` was installed from.

    Raises:
        CommandError: weir was installed without its sources.
    """
    root = Path(weir.__file__).resolve().parents[2]
    if (root / "load_tests").is_dir() and (root / "pyproject.toml").is_file():
        return root
    raise CommandError(
        "this command needs weir's sources, and this weir was installed without them",
        ExitCode.USAGE,
        hint="clone the repository and run 'make setup' there",
    )


def benches(root: Path) -> dict[str, str]:
    """Name and first docstring line of each benchmark, sorted by name."""
    files = sorted((root / "load_tests").glob("bench_*.py"))
    return {file.stem.removeprefix("bench_"): _first_line(file) for file in files}


def _first_line(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return text.partition("\n")[0].replace("``", "")


def bench_module(root: Path, name: str) -> str:
    """The module of benchmark ``name``.

    Raises:
        CommandError: there is no such benchmark.
    """
    known = benches(root)
    if name not in known:
        names = ", ".join(known) or "none yet"
        raise CommandError(f"no benchmark {name!r}; known: {names}", ExitCode.USAGE)
    return f"load_tests.bench_{name}"


def trainer_module(root: Path, name: str) -> str:
    """The module that trains ``name``.

    Raises:
        CommandError: nothing of that name can be trained.
    """
    if name not in TRAINERS:
        raise CommandError(
            f"nothing to train called {name!r}; known: {', '.join(TRAINERS)}", ExitCode.USAGE
        )
    return require_module(root, TRAINERS[name])


def require_module(root: Path, module: str) -> str:
    """``module`` itself, if the checkout has it.

    Raises:
        CommandError: it does not.
    """
    if not (root / f"{module.replace('.', '/')}.py").is_file():
        raise CommandError(f"this checkout has no {module}", ExitCode.USAGE)
    return module


def run_module(root: Path, module: str, arguments: Sequence[str]) -> int:
    """``python -m module arguments`` in the checkout; its exit code (128 + n after signal n)."""
    return run_python(module, arguments, (root / "platform", root), root)
