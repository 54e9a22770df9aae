"""What settings make of vLLM's configuration, and which file a model's blocks are in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from deployments.pools import pools_of
from deployments.tiers import namespace as namespaces
from deployments.tiers.config import disk_folder
from deployments.tiers.figures import TierFigures
from deployments.tiers.namespace import model_digest, namespace
from deployments.versions import model_version
from router.tiers import TierUse
from weir.settings import Settings, parse_settings
from weir.settings.load import SettingsError

TIERS = {"memory_bytes": 1 << 24, "disk_folder": "/kv", "disk_bytes": 1 << 26}


def settings_of(**model: Any) -> Settings:
    return parse_settings({"models": [{"name": "a/m", "source": "x", **model}]}, "test")


def transfers(**model: Any) -> list[dict[str, Any] | None]:
    return [pool.kv_transfer() for pool in pools_of(settings_of(**model).models[0])]


def disk_of(**model: Any) -> dict[str, Any]:
    (transfer,) = transfers(**model)
    assert transfer is not None
    return dict(transfer["kv_connector_extra_config"]["weir_disk"])


@pytest.mark.parametrize("accelerator", [None, "H100"])
def test_blocks_move_by_vllms_offloading_connector(accelerator: str | None) -> None:
    (transfer,) = transfers(engine={"kv_tiers": TIERS}, accelerator=accelerator)
    assert transfer is not None
    extra = transfer.pop("kv_connector_extra_config")
    assert transfer == {
        "kv_connector": "OffloadingConnector",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
    }
    assert extra["spec_module_path"] == "deployments.tiers.spec"
    assert extra["cpu_bytes_to_use"] == 1 << 24
    assert extra["weir_disk"]["max_bytes"] == 1 << 26
    assert Path(extra["weir_disk"]["folder"]).parent == Path("/kv")


def test_pools_have_the_models_tiers_their_own_or_none() -> None:
    own = {"memory_bytes": 1 << 25}
    pools = [
        {"name": "a"},
        {"name": "b", "engine": {"kv_tiers": own}},
        {"name": "c", "engine": {"kv_tiers": False}},
    ]
    first, second, third = transfers(engine={"kv_tiers": TIERS}, pools=pools)
    assert first is not None
    assert first["kv_connector_extra_config"]["weir_disk"]["max_bytes"] == 1 << 26
    assert second is not None
    assert second["kv_connector_extra_config"]["cpu_bytes_to_use"] == 1 << 25
    assert "weir_disk" not in second["kv_connector_extra_config"]
    assert third is None


def test_settings_say_the_same_after_they_were_written_down() -> None:
    settings = settings_of(
        engine={"kv_tiers": TIERS}, pools=[{"name": "c", "engine": {"kv_tiers": False}}]
    )
    assert parse_settings(settings.model_dump(mode="json"), "test") == settings


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"engine": {"mode": "stub"}}, "a stub has no KV cache"),
        ({"engine": {"args": {"enable_prefix_caching": False}}}, "needs enable_prefix_caching"),
        ({"engine": {"args": {"prefix_caching_hash_algo": "xxhash"}}}, "not xxhash"),
        ({"engine": {"args": {"kv_transfer_config": {}}}}, "engine.args has one too"),
        ({"accelerator": "H100", "parallel": {"pipeline": 2}}, "not with parallel.pipeline"),
        ({"accelerator": "H100", "parallel": {"data": 2}}, "parallel.data"),
        (
            {"pools": [{"name": "p", "role": "prefill"}, {"name": "d", "role": "decode"}]},
            "hand KV blocks to others",
        ),
    ],
)
def test_what_does_not_go_with_tiers_is_refused_with_the_reason(
    model: dict[str, Any], said: str
) -> None:
    engine = {**model.get("engine", {}), "kv_tiers": TIERS}
    with pytest.raises(SettingsError, match=said):
        settings_of(**{**model, "engine": engine})


@pytest.mark.parametrize(
    "tiers",
    [
        {"memory_bytes": 1},
        {"memory_bytes": 1 << 24, "disk_folder": "/kv"},
        {"memory_bytes": 1 << 24, "disk_bytes": 1 << 26},
        {**TIERS, "disk_folder": "kv"},
    ],
)
def test_half_a_tier_is_refused(tiers: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        settings_of(engine={"kv_tiers": tiers})


def test_no_two_pools_share_a_folder() -> None:
    folders = {
        disk_folder("/kv", model, pool)
        for model, pool in [("a/m", ""), ("a_m", ""), ("a/m", "p"), ("a/m_p", "")]
    }
    assert len(folders) == 4
    assert all(folder.parent == Path("/kv") for folder in folders)


def test_arguments_that_change_blocks_make_another_file_and_others_do_not() -> None:
    usual = disk_of(engine={"kv_tiers": TIERS})
    assert disk_of(engine={"kv_tiers": TIERS, "args": {"max_num_seqs": 7}}) == usual
    for change in (
        {"engine": {"kv_tiers": TIERS, "args": {"dtype": "float16"}}},
        {"engine": {"kv_tiers": TIERS, "args": {"attention_backend": "x"}}},
        {"engine": {"kv_tiers": TIERS, "env": {"VLLM_CPU_X": "1"}}},
        {"engine": {"kv_tiers": TIERS}, "accelerator": "H100"},
        {"engine": {"kv_tiers": TIERS}, "parallel": {"tensor": 2}},
    ):
        assert disk_of(**change)["engine"] != usual["engine"], change


def test_other_tiers_are_another_version_of_the_replica() -> None:
    versions = set()
    for tiers in (None, TIERS, {**TIERS, "memory_bytes": 1 << 25}):
        settings = settings_of(engine={"kv_tiers": tiers})
        (pool,) = pools_of(settings.models[0])
        versions.add(model_version(pool, settings, []))
    assert len(versions) == 3


@pytest.fixture(params=["whole", "samples"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "samples":
        monkeypatch.setattr(namespaces, "WHOLE_BYTES", 10)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    (tmp_path / "notes.txt").write_text("not a part of it")
    return tmp_path


def test_a_models_files_are_known_by_their_content(folder: Path) -> None:
    digest = model_digest(str(folder))
    (folder / "notes.txt").write_text("still not")
    assert model_digest(str(folder)) == digest
    weights = folder / "model.safetensors"
    written = weights.stat()
    weights.write_bytes(bytes(500) + b"\1" + bytes(499))
    os.utime(weights, ns=(written.st_atime_ns, written.st_mtime_ns))
    assert model_digest(str(folder)) != digest
    (folder / "more.safetensors").write_bytes(b"1")
    assert len({model_digest(str(folder)), digest}) == 2


def test_a_model_that_is_nowhere_is_known_by_its_name() -> None:
    assert model_digest("no/such-model") != model_digest("no/other-model")


def test_one_fact_more_or_less_is_another_namespace() -> None:
    made = [namespace(a=1), namespace(a=2), namespace(a=1, b=None), namespace(b=1)]
    assert len(set(made)) == 4
    assert {len(each) for each in made} == {32}


def test_figures_are_smoothed_times_of_a_block() -> None:
    figures = TierFigures()
    assert figures.use == TierUse()
    gauges = {
        "weir_kv_tier_blocks": {("memory",): 4, ("disk",): 9},
        "weir_kv_tier_bytes": {("memory",): 4000, ("disk",): 9000},
        "weir_kv_tier_limit_bytes": {("memory",): 8000, ("disk",): 20000},
    }
    loads = {
        "vllm:kv_offload_load_bytes": {(): 3000},
        "vllm:kv_offload_load_time": {(): 0.3},
        "vllm:kv_offload_tiering_read_bytes": {("1:disk",): 2000},
        "vllm:kv_offload_tiering_read_time": {("1:disk",): 1.0},
    }
    figures.add({"data": {**gauges, **loads}})
    assert figures.use == TierUse(4000, 8000, 9000, 20000, pytest.approx(0.1), pytest.approx(0.5))
    figures.add({"data": {"vllm:kv_offload_load_bytes": {(): 1000},
                          "vllm:kv_offload_load_time": {(): 0.2}}})  # fmt: skip
    assert 0.1 < figures.use.memory_load_s < 0.2
    assert figures.use.disk_load_s == pytest.approx(0.5)
