"""Adapters in settings and as files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file
from typer.testing import CliRunner

from weir.adapters import inspect_adapter, largest_rank
from weir.cli.main import app
from weir.errors import ConfigError
from weir.registry import GateReport, Registry
from weir.registry.index import Stage
from weir.settings import ModelSettings, Settings, TenantSettings


def _write(folder: Path, rank: int = 4, scale: float = 1.0, **config: Any) -> Path:
    folder.mkdir(parents=True)
    weights = {"base_model.model.model.q_proj.lora_A.weight": np.full((rank, 4), scale)}
    save_file(weights, folder / "adapter_model.safetensors")
    told = {"peft_type": "LORA", "r": rank, **config}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    return folder


def _manifest(folder: Path) -> None:
    files = ("adapter_config.json", "adapter_model.safetensors")
    digests = {f: hashlib.sha256((folder / f).read_bytes()).hexdigest() for f in files}
    told = {"name": "tone", "version": "1", "sha256": digests}
    (folder / "manifest.json").write_text(json.dumps(told))


def _model(*adapters: dict[str, Any], **more: Any) -> ModelSettings:
    return ModelSettings.model_validate({"name": "m", "source": "x", "adapters": adapters, **more})


def test_other_weights_are_another_version(tmp_path: Path) -> None:
    one = inspect_adapter(str(_write(tmp_path / "a")))
    same = inspect_adapter(str(_write(tmp_path / "b")))
    other = inspect_adapter(str(_write(tmp_path / "c", scale=2.0)))
    assert one.rank == 4
    assert one.digest == same.digest != other.digest


def test_the_largest_rank_is_one_that_vllm_knows(tmp_path: Path) -> None:
    small = inspect_adapter(str(_write(tmp_path / "a", rank=4)))
    large = inspect_adapter(str(_write(tmp_path / "b", rank=4, rank_pattern={"q_proj": 20})))
    assert largest_rank([small]) == 8
    assert largest_rank([small, large]) == 32
    assert largest_rank([]) == 1


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type"),
        ({"r": 0}, "rank"),
        ({"r": "8"}, "rank"),
        ({"r": 4096}, "rank"),
    ],
)
def test_what_is_no_lora_adapter_is_refused(
    tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        inspect_adapter(str(_write(tmp_path / "a", **config)))


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"])
def test_damaged_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = _write(tmp_path / "a")
    (folder / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match="adapter_model"):
        inspect_adapter(str(folder))


def test_a_manifest_is_checked(tmp_path: Path) -> None:
    folder = _write(tmp_path / "a")
    _manifest(folder)
    inspect_adapter(str(folder))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8}))
    with pytest.raises(ConfigError, match="SHA-256"):
        inspect_adapter(str(folder))


def test_the_registry_keeps_adapters(tmp_path: Path) -> None:
    folder = _write(tmp_path / "a")
    _manifest(folder)
    registry = Registry(str(tmp_path / "registry"))
    version = registry.add(folder, GateReport(True))
    registry.promote("tone", version.number, Stage.CANARY)
    registry.promote("tone", version.number, Stage.LIVE)
    found = inspect_adapter("registry:tone@live", str(tmp_path / "registry"))
    assert found.digest == inspect_adapter(str(folder)).digest


@pytest.mark.parametrize(
    ("adapters", "says"),
    [
        ([{"name": "a", "source": "x"}, {"name": "a", "source": "y"}], "defined twice"),
        ([{"name": "a", "source": "x", "tenants": ["nobody"]}], "no tenant"),
        ([{"name": "a", "source": "x", "aliases": ["m"]}], "is taken"),
        ([{"name": "a:b", "source": "x"}], "pattern"),
    ],
)
def test_names_are_checked(adapters: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(models=(_model(*adapters),), tenants=(TenantSettings(id="t"),))


@pytest.mark.parametrize("name", ["enable_lora", "max_loras", "max_lora_rank", "lora_modules"])
def test_the_engines_own_arguments_are_taken(name: str) -> None:
    with pytest.raises(ValidationError, match="adapter"):
        _model(engine={"args": {name: 1}})


def test_config_check_opens_adapters_beside_the_file(tmp_path: Path) -> None:
    _write(tmp_path / "tone")
    file = tmp_path / "weir.yaml"
    text = "models: [{name: m, source: org/m, adapters: [{name: a, source: %s}]}]"
    file.write_text(text % "./tone")
    good = CliRunner().invoke(app, ["config", "check", str(file)])
    assert good.exit_code == 0, good.output
    file.write_text(text % "./none")
    bad = CliRunner().invoke(app, ["config", "check", str(file)])
    assert bad.exit_code != 0
