"""Where models come from, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from deployments.sources import model_source
from weir.errors import ConfigError
from weir.registry import GateReport, Registry, Stage


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    manifest = {"name": "student", "version": "1", "sha256": {"config.json": digest}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_model_of_the_registry(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIR_HOME", str(tmp_path))
    registry = Registry(str(tmp_path / "registry"))
    registry.add(model, GateReport(True))
    with pytest.raises(ConfigError, match="nothing of stage live"):
        model_source("registry:student")
    registry.promote("student", 1, Stage.LIVE)
    folder = Path(model_source("registry:student"))
    assert (folder / "config.json").read_text() == "{}"
    assert model_source("registry:student@1", str(tmp_path / "registry")) == str(folder)
    (folder / "config.json").write_text("{ }")
    with pytest.raises(ConfigError, match=r"config\.json: refused"):
        model_source("registry:student@live")


def test_a_folder_must_be_a_model(tmp_path: Path, model: Path) -> None:
    assert model_source(str(model)) == str(model)
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        model_source(str(tmp_path))
    with pytest.raises(ConfigError, match="no directory"):
        model_source("./nowhere")
    with pytest.raises(ConfigError, match="ships no model 'nobody'"):
        model_source("builtin:nobody")
    assert model_source("Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B"
