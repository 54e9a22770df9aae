"""From flags to the settings that the platform runs with."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from weir.cli.effective import (
    MASK,
    SettingsFlags,
    effective_settings,
    holds_key,
    masked,
    to_masked_yaml,
    to_yaml,
    with_demo_tenant,
)
from weir.cli.exits import CommandError, ExitCode
from weir.settings import SettingsError, load_settings, parse_settings
from weir.tenancy import hash_key


def test_without_flags_the_profile_itself() -> None:
    assert effective_settings(SettingsFlags()) == load_settings("laptop")


def test_port_and_model_reach_the_settings(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("server: {port: 7000, host: 0.0.0.0}")
    settings = effective_settings(SettingsFlags("laptop", config, "org/Some-Model", 7001, 7002))
    assert (settings.server.port, settings.redis.port) == (7001, 7002)
    assert settings.server.host == "0.0.0.0"
    assert [(m.name, m.source) for m in settings.models] == [("Some-Model", "org/Some-Model")]
    assert settings.models[0].engine == load_settings("laptop").models[0].engine


def test_an_external_redis_has_no_port_to_choose(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("redis: {mode: external, url: 'redis://a'}")
    with pytest.raises(CommandError, match="--redis-port: the settings use an external Redis"):
        effective_settings(SettingsFlags(config=config, redis_port=7002))


def test_a_directory_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path)
    for given in ("./my-model", "my-model", "my-model/"):
        model = effective_settings(SettingsFlags(model=given)).models[0]
        assert (model.name, model.source) == ("my-model", str(tmp_path / "my-model"))


def test_a_relative_source_is_relative_to_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "model").mkdir(parents=True)
    config = tmp_path / "here" / "c.yaml"
    config.write_text("models: [{name: m, source: ./model}, {name: n, source: org/n}]")
    monkeypatch.chdir(tmp_path)
    models = effective_settings(SettingsFlags(config=Path("here/c.yaml"))).models
    assert [m.source for m in models] == [str(tmp_path / "here" / "model"), "org/n"]


@pytest.mark.parametrize("given", ["./nowhere", "/nowhere/at/all", "~/no such model"])
def test_a_missing_directory_is_a_usage_error(given: str) -> None:
    with pytest.raises(CommandError, match="no such directory") as caught:
        effective_settings(SettingsFlags(model=given))
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("given", ["", "a/b/c", "a b", "https://x/y"])
def test_what_is_no_model_at_all(given: str) -> None:
    with pytest.raises((CommandError, SettingsError)):
        effective_settings(SettingsFlags(model=given))


def test_the_demo_tenant_comes_only_where_there_are_none() -> None:
    settings = with_demo_tenant(load_settings("laptop"), "weir_k")
    assert [t.id for t in settings.tenants] == ["demo"]
    assert holds_key(settings, "weir_k")
    tree = {"tenants": [{"id": "shop", "key_sha256": [hash_key("weir_s")]}]}
    own = load_settings("laptop", overlay=tree)
    assert with_demo_tenant(own, "weir_k") == own
    assert not holds_key(own, "weir_k")


def test_yaml_round_trip() -> None:
    settings = with_demo_tenant(load_settings("gpu"), "weir_k")
    assert parse_settings(yaml.safe_load(to_yaml(settings)), "test") == settings


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:1/0", f"redis://:{MASK}@h:1/0"),
        ("rediss://me:p%40w@h/0?a=1", f"rediss://me:{MASK}@h/0?a=1"),
        ("redis://me@h:1/0", "redis://me@h:1/0"),
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://[bad", "redis://[bad"),
    ],
)
def test_passwords_in_urls_are_masked(url: str, shown: str) -> None:
    assert masked({"url": url}) == {"url": shown}


def test_secrets_are_masked_by_name_and_nothing_else_is() -> None:
    tree = {
        "env": {"HF_TOKEN": "a", "AWS_SECRET": "b", "OMP_NUM_THREADS": "1"},
        "args": {"api_key": ["c"], "max_num_batched_tokens": 2048, "password": None},
    }
    assert masked(tree) == {
        "env": {"HF_TOKEN": MASK, "AWS_SECRET": MASK, "OMP_NUM_THREADS": "1"},
        "args": {"api_key": [MASK], "max_num_batched_tokens": 2048, "password": None},
    }


def test_the_environments_redis_wins_and_is_masked() -> None:
    environment = {"WEIR_REDIS_URL": "redis://:pw@elsewhere:1/0"}
    shown = yaml.safe_load(to_masked_yaml(load_settings("gpu"), environment))
    assert shown["redis"]["url"] == f"redis://:{MASK}@elsewhere:1/0"
    embedded = yaml.safe_load(to_masked_yaml(load_settings("laptop"), environment))
    assert embedded["redis"]["url"] is None
