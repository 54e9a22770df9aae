"""``weir models`` from the command line to the registry and back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from weir.cli.exits import CommandError
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


def card(tmp_path: Path, *arguments: str) -> str:
    environment = {"WEIR_HOME": str(tmp_path / "home")}
    result = CliRunner().invoke(app, ["models", "card", *arguments], env=environment)
    if result.exception is not None:
        raise result.exception
    return result.output


def test_the_card_of_a_model_of_the_settings(tmp_path: Path) -> None:
    figures = json.loads(card(tmp_path, "weir-teacher", "--json"))
    # float32 and the block size are the laptop profile's.
    assert figures["kv_bytes_per_token"] == 5 * 2 * 2 * 64 * 4
    assert figures["block_bytes"] == 32 * figures["kv_bytes_per_token"]
    assert figures["kv_blocks"] == 67108864 // figures["block_bytes"]
    assert [at["context_tokens"] for at in figures["at"]] == [1024]
    text = card(tmp_path, "weir-teacher", "--memory", "1")
    assert "5 × gqa" in text
    assert "tokens of context" in text


def test_the_card_of_a_folder_and_of_what_is_not_there(tmp_path: Path) -> None:
    folder = Path(__file__).parents[3] / "platform/weir/artifacts/teacher"
    room = json.loads(card(tmp_path, str(folder), "--json"))
    assert room["most_tokens"] is None
    small = card(tmp_path, str(folder), "--json", "--memory", "0.001")
    assert json.loads(small)["most_tokens"] == 0
    with pytest.raises(CommandError, match="is called no-such"):
        card(tmp_path, "no-such")
