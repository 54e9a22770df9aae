"""``weir models`` from the command line to the registry and back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from weir.cli.main import app
from weir.errors import ConfigError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    manifest = {"name": "student", "version": "1.0.0", "sha256": {"config.json": digest}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def weir(tmp_path: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["models", *arguments, "--registry", str(tmp_path / "r")])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_a_model_from_candidate_to_live_and_back(tmp_path: Path, model: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"passed": True}))
    assert "no model" in weir(tmp_path, "list")
    assert weir(tmp_path, "add", str(model), "--report", str(report)) == "student@1 is candidate\n"
    assert weir(tmp_path, "promote", "student", "1") == "student@1 is canary\n"
    assert weir(tmp_path, "promote", "student", "1", "--to", "live") == "student@1 is live\n"
    listed = json.loads(weir(tmp_path, "list", "student", "--json"))
    assert [(v["number"], v["stage"]) for v in listed] == [(1, "live")]
    shown = json.loads(weir(tmp_path, "show", "student"))
    assert shown["manifest"]["version"] == "1.0.0"
    with pytest.raises(ConfigError, match="no earlier version"):
        weir(tmp_path, "rollback", "student")


def test_a_failed_gate_and_an_unknown_stage_are_named(tmp_path: Path, model: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"passed": False, "failures": ["accuracy 0.1 below 0.7"]}))
    with pytest.raises(ConfigError, match=r"accuracy 0\.1 below 0\.7"):
        weir(tmp_path, "add", str(model), "--report", str(report))
    with pytest.raises(ConfigError, match="best"):
        weir(tmp_path, "promote", "student", "1", "--to", "best")
