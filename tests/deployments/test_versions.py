"""What makes Serve restart a replica, and what does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from deployments.pools import Pool
from deployments.versions import gateway_version, model_version
from weir.settings import ModelSettings, Settings, load_settings


def changed(settings: Settings, **update: Any) -> ModelSettings:
    return settings.models[0].model_copy(update=update)


@pytest.fixture
def settings() -> Settings:
    return load_settings("laptop")


def test_counts_are_no_part_of_a_version(settings: Settings) -> None:
    before = model_version(Pool(settings.models[0]), settings, [])
    assert model_version(Pool(changed(settings, replicas=7)), settings, []) == before
    assert model_version(Pool(changed(settings)), load_settings("laptop"), []) == before


@pytest.mark.parametrize("update", [{"num_cpus": 3.0}, {"drain_timeout_s": 1.5}, {"source": "x"}])
def test_what_a_replica_is_made_from_is(settings: Settings, update: dict[str, Any]) -> None:
    before = model_version(Pool(settings.models[0]), settings, [])
    assert model_version(Pool(changed(settings, **update)), settings, []) != before


def test_new_weights_in_the_same_folder_are_a_new_version(
    settings: Settings, tmp_path: Path
) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    before = model_version(Pool(settings.models[0]), settings, [str(tmp_path)])
    assert model_version(Pool(settings.models[0]), settings, [str(tmp_path)]) == before
    os.utime(weights, (1, 4_000_000_000))
    assert model_version(Pool(settings.models[0]), settings, [str(tmp_path)]) != before


def test_a_gateway_is_restarted_by_what_it_was_given(settings: Settings) -> None:
    other = settings.model_copy(update={"models": settings.models[:1]})
    assert gateway_version(settings, {}) == gateway_version(load_settings("laptop"), {})
    assert gateway_version(settings, {}) != gateway_version(other, {})
    assert gateway_version(settings, {}) != gateway_version(settings, {"m": {"a": "1"}})
