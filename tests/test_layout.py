"""DESIGN.md's map, held: what lives where, who may import what, what may not be committed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("platform/weir", "router", "features", "fallback", "deployments", "load_tests")
FOLDERS = ("platform", "router", "features", "fallback", "deployments", "k8s", "tests")
MAX_FILE_BYTES = 12_000_000
TEXT_SUFFIXES = {
    "", ".cfg", ".html", ".in", ".ini", ".j2", ".json", ".jsonl", ".md", ".mk", ".py", ".sh",
    ".svg", ".toml", ".tpl", ".txt", ".yaml", ".yml",
}  # fmt: skip

# Who may import the heavy libraries: path prefixes, relative to the repository. Tests of the engine
# may import them too; everything else must run without.
ALLOWED_IMPORTS = {
    "ray": (
        "deployments/",
        "router/ray_adapter.py",
        "features/generation/",
        "tests/",
        "load_tests/",
    ),
    "vllm": ("deployments/", "tests/", "load_tests/"),
    "feast": ("features/repo/", "tests/features/", "tests/conformance/", "load_tests/"),
    "torch": (
        "fallback/training/",
        "fallback/distill/",
        "fallback/evaluation/",
        "fallback/quantize/",
        "deployments/",
        "tests/",
    ),
}
# `except Exception` belongs at a process's edge. A new edge is added here, with its reason.
# features/online/on_demand.py calls the operator's own function for each look-up;
# deployments/batches/runner.py works in the background of a gateway;
# weir/tenancy/watch.py has a thread of its own, without which a gateway would know no new key;
# gateway/tracing/shipping.py has another, which sends traces: what fails there costs spans only.
BROAD_EXCEPT_LIMIT = 20


@cache
def tracked() -> tuple[Path, ...]:
    """Files that are committed or about to be; all files where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        files = [ROOT / name for name in run.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        hidden = (".venv", ".git", "__pycache__", ".cache")
        files = [f for f in ROOT.rglob("*") if not any(part in hidden for part in f.parts)]
    return tuple(f for f in files if f.is_file() and not f.is_symlink())


@cache
def python_files(*folders: str) -> tuple[Path, ...]:
    roots = [ROOT / folder for folder in folders]
    files = (f for f in tracked() if f.suffix == ".py")
    return tuple(f for f in files if any(root in f.parents for root in roots))


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imported_tops(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and top-level package of each import, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]


def text_lines() -> Iterator[tuple[str, int, str]]:
    """Every line of every tracked text file but this one."""
    for file in tracked():
        if file.suffix in TEXT_SUFFIXES and file != Path(__file__).resolve():
            for number, line in enumerate(file.read_text("utf-8", "replace").splitlines(), 1):
                yield name(file), number, line


def test_rooms_exist() -> None:
    assert [room for room in ROOMS if not (ROOT / room / "__init__.py").is_file()] == []
    assert [folder for folder in FOLDERS if not (ROOT / folder).is_dir()] == []


def test_platform_is_a_source_root_and_not_a_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    source_root = ROOT / "platform"
    inside = {f.relative_to(source_root).parts[0] for f in tracked() if source_root in f.parents}
    assert inside == {"weir"}


def test_standard_library_platform_is_importable_from_the_checkout() -> None:
    code = "import platform; print(platform.python_version(), platform.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    version, file = run.stdout.split()
    assert version.startswith("3.11")
    assert ROOT / "platform" not in Path(file).parents


def test_wheel_holds_the_five_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == ["platform/weir", "router", "features", "fallback", "deployments"]


@pytest.mark.parametrize("library", sorted(ALLOWED_IMPORTS))
def test_heavy_libraries_are_imported_only_where_the_design_allows(library: str) -> None:
    allowed = ALLOWED_IMPORTS[library]
    found = [
        f"{name(file)}:{line}"
        for file in python_files(*ROOMS, "tests")
        for line, top in imported_tops(parsed(file))
        if top == library and not name(file).startswith(allowed)
    ]
    assert found == []


def test_the_import_scan_sees_nested_imports() -> None:
    tree = ast.parse(
        "def f():\n    if x:\n        from ray.serve import run\n    import torch as t"
    )
    assert sorted(imported_tops(tree)) == [(3, "ray"), (4, "torch")]


def test_no_drawer_modules() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "misc"}
    found = [name(f) for f in python_files(*ROOMS, "tests") if drawers & {*f.parts, f.stem}]
    assert found == []


def test_no_wildcard_imports() -> None:
    found = [
        f"{name(file)}:{node.lineno}"
        for file in python_files(*ROOMS, "tests")
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names)
    ]
    assert found == []


def _is_broad(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or (
        isinstance(handler.type, ast.Name) and handler.type.id in ("Exception", "BaseException")
    )


def _reraises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(handler))


def test_broad_excepts_stay_few_and_carry_their_reason() -> None:
    """One that raises again is no swallowing; any other is an edge and says so on its line."""
    edges, silent = [], []
    for file in python_files(*ROOMS):
        lines = file.read_text("utf-8").splitlines()
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _reraises(node):
                where = f"{name(file)}:{node.lineno}"
                edges.append(where)
                around = lines[max(0, node.lineno - 2) : node.lineno + 1]
                if not any("#" in line for line in around):
                    silent.append(where)
    assert silent == [], "say in a comment why this is a process's edge"
    assert len(edges) <= BROAD_EXCEPT_LIMIT, edges


def test_metrics_are_declared_in_one_module() -> None:
    kinds = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}
    found = []
    for file in python_files(*ROOMS):
        if name(file) == "platform/weir/metrics.py":
            continue
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.ImportFrom) and node.module == "prometheus_client":
                found += [f"{name(file)}:{node.lineno}" for a in node.names if a.name in kinds]
            if (
                isinstance(node, ast.Attribute)
                and node.attr in kinds
                and isinstance(node.value, ast.Name)
                and node.value.id == "prometheus_client"
            ):
                found.append(f"{name(file)}:{node.lineno}")
    assert found == []


def test_no_registry_is_named() -> None:
    registry = re.compile(
        r"(?:files\.pythonhosted|pypi|deb\.debian|registry\.npmjs)\.(?:org|com)", re.IGNORECASE
    )
    assert [f"{f}:{n}" for f, n, line in text_lines() if registry.search(line)] == []


def test_no_lock_files_with_addresses() -> None:
    forbidden = {"uv.lock", "poetry.lock", "package-lock.json", "yarn.lock", "pnpm-lock.yaml"}
    assert [name(f) for f in tracked() if f.name in forbidden] == []
    lock = (ROOT / "requirements" / "lock.txt").read_text("utf-8")
    assert "://" not in lock
    pins = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(pins) > 100
    assert [p for p in pins if "==" not in p or not p.endswith("\\")] == [], "a pin without hash"
    assert lock.count("--hash=sha256:") >= len(pins)


def test_the_lock_holds_what_is_asked_for() -> None:
    lock = (ROOT / "requirements" / "lock.txt").read_text("utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", lock, re.MULTILINE))
    for line in (ROOT / "requirements" / "lock.in").read_text("utf-8").splitlines():
        wanted, _, version = line.partition("==")
        package = wanted.partition("[")[0].lower()
        assert package in locked, f"{package} is missing; run make lock"
        assert version in ("", locked[package])
    for banned in ("torchvision", "torchaudio", "torchcodec"):
        assert banned not in locked, f"{banned} breaks transformers on a machine without a GPU"


def test_no_large_files() -> None:
    large = [(name(f), f.stat().st_size) for f in tracked() if f.stat().st_size > MAX_FILE_BYTES]
    assert large == []


def test_no_paths_of_one_machine() -> None:
    """An absolute path that holds only where the author sat."""
    machine = re.compile(
        r"(?<![\w.$}~])/(?:root|work|Users|mnt)/[\w.-]|/home/(?!app/|ray/|weir/)\w"
    )
    found = [f"{f}:{n}" for f, n, line in text_lines() if machine.search(line)]
    assert found == []


def test_front_pages_exist() -> None:
    for page, heading in (("README.md", "# weir"), ("CHANGELOG.md", "## [Unreleased]")):
        assert heading in (ROOT / page).read_text("utf-8")


def test_ci_runs_the_two_checks() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, ".ci/run is not executable"
    lines = script.read_text("utf-8").splitlines()
    assert "make check" in lines
    assert "make test" in lines


@pytest.mark.parametrize("target", ["setup", "up", "down", "test", "check", "bench", "lock"])
def test_make_targets_exist(target: str) -> None:
    run = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_relative_links_of_the_docs_lead_somewhere() -> None:
    pages = [f for f in tracked() if f.suffix == ".md"]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" in target or target.startswith("mailto:"):
                continue
            if not (page.parent / target).exists():
                broken.append(f"{name(page)}: {target}")
    assert broken == []
