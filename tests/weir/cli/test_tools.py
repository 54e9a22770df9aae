"""Commands that run where torch may be imported: paths, exit codes, and a missing torch."""

import importlib.util
from pathlib import Path

import pytest
from typer.testing import CliRunner

from weir.cli import distill
from weir.cli.distill import run_tool
from weir.cli.effective import SettingsFlags, effective_settings
from weir.cli.exits import CommandError, ExitCode
from weir.cli.main import app

QUANTIZED = '{"quantization_config": {}}'


def test_a_tool_runs_where_the_caller_is_and_returns_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tool.py").write_text(
        "import pathlib, sys\npathlib.Path(sys.argv[1]).write_text('x')\nsys.exit(5)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run_tool("tool", ["said.txt"]) == 5
    assert (tmp_path / "said.txt").read_text() == "x"


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(CommandError) as caught:
        run_tool("tool", [])
    assert caught.value.exit_code == ExitCode.USAGE
    assert "weir[cpu]" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("distill", "fallback.distill.command"),
        ("eval", "fallback.evaluation.command"),
        ("quantize", "fallback.quantize.command"),
    ],
)
def test_flags_and_help_go_to_the_tool(
    command: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, list[str]]] = []

    def run(name: str, arguments: list[str]) -> int:
        seen.append((name, arguments))
        return 3

    monkeypatch.setattr(distill, "run_tool", run)
    monkeypatch.setattr(f"weir.cli.{command}.run_tool", run)
    result = CliRunner().invoke(app, [command, "model", "--out", "x", "--help"])
    assert result.exit_code == 3
    assert seen == [(module, ["model", "--out", "x", "--help"])]


@pytest.mark.parametrize(("config", "dtype"), [("{}", "float32"), (QUANTIZED, "bfloat16")])
def test_a_quantized_model_is_served_in_the_precision_its_kernels_take(
    config: str, dtype: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(config)
    settings = effective_settings(SettingsFlags(model=str(tmp_path)))
    assert settings.models[0].engine.args["dtype"] == dtype
