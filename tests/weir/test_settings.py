"""The settings tree: everything wrong is told at once, with its path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pydantic
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from weir.errors import ConfigError
from weir.settings import (
    ModelSettings,
    Problem,
    Settings,
    SettingsError,
    load_settings,
    parse_settings,
    profile_names,
    read_tree,
)
from weir.settings.section import Section

MODEL = {"name": "m", "source": "builtin:teacher"}


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return file


def problems(tmp_path: Path, text: str) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        load_settings("laptop", write(tmp_path, text))
    return {problem.path: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_valid_and_survives_a_round_trip(name: str) -> None:
    settings = load_settings(name)
    assert parse_settings(settings.model_dump(mode="json"), name) == settings


def test_the_known_profiles() -> None:
    assert {"laptop", "gpu"} <= set(profile_names())


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="no such profile; known: gpu, laptop"):
        load_settings("cloud")


def test_all_problems_at_once_each_with_its_path(tmp_path: Path) -> None:
    text = """
server:
  port: 99999
  prot: 1
redis:
  mode: sometimes
models:
  - name: "bad name"
    source: builtin:teacher
  - source: builtin:teacher
    replicas: -1
tenants:
  - id: shop
    key_sha256: [abc]
colour: red
"""
    found = problems(tmp_path, text)
    assert set(found) == {
        "server.port",
        "server.prot",
        "redis.mode",
        "models[0].name",
        "models[1].name",
        "models[1].replicas",
        "tenants[0].key_sha256[0]",
        "colour",
    }
    assert found["colour"] == "unknown key"
    assert found["server.prot"] == "unknown key; did you mean 'port'?"
    assert found["models[1].name"] == "missing"
    assert "65535" in found["server.port"]
    assert "99999" in found["server.port"]


def test_problems_are_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Whatever finds them: the key itself, its section, or what another section says."""
    text = """
models:
  - {name: m, source: x, pools: [{name: p}, {name: p}], fallback: {student: nobody}}
  - {name: 1, sorce: x}
tenants: [{id: t, models: [n, m]}, {id: t, colour: red}]
"""
    found = list(problems(tmp_path, text))
    assert found == [
        "models[0].pools[1].name",
        "models[0].fallback.student",
        "models[1].source",
        "models[1].name",
        "models[1].sorce",
        "tenants[0].models[0]",
        "tenants[1].id",
        "tenants[1].colour",
    ]


def test_every_section_is_made_alike() -> None:
    def below(annotation: object) -> Iterator[type]:
        if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            yield annotation
            for field in annotation.model_fields.values():
                yield from below(field.annotation)
        for inner in get_args(annotation):
            yield from below(inner)

    sections = set(below(Settings))
    assert len(sections) > 30
    assert [each for each in sections if not issubclass(each, Section)] == []
    assert all(each.model_config == Section.model_config for each in sections)


def test_the_message_lists_every_problem(tmp_path: Path) -> None:
    file = write(tmp_path, "a: 1\nb: 2\n")
    with pytest.raises(SettingsError) as caught:
        load_settings("laptop", file)
    assert str(caught.value) == f"{file}: 2 problems\n  a: unknown key\n  b: unknown key"
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("server: {port: 1}\nserver: {port: 2}", "(yaml)", "key 'server' is given twice"),
        ("models: [{name: a, name: b}]", "(yaml)", "key 'name' is given twice"),
        ("? [a]\n: 1", "(yaml)", "a key must be text"),
        ("server: [1", "(yaml)", "expected"),
        ("- 1\n- 2", "(top level)", "expected a mapping, found list"),
        ("server: 5", "server", "valid dictionary"),
        ("models: []", "models", "at least 1 item"),
        ("!!python/object/apply:os.system ['true']", "(yaml)", "could not determine a constructor"),
    ],
)
def test_yaml_that_says_nothing_clear_is_refused(
    tmp_path: Path, text: str, path: str, message: str
) -> None:
    assert message in problems(tmp_path, text)[path]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings("laptop", tmp_path / "absent.yaml")
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"a: \xff")
    with pytest.raises(SettingsError, match=r"\(file\).*utf-8"):
        load_settings("laptop", file)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load_settings("laptop", write(tmp_path, "")) == load_settings("laptop")


def test_mappings_merge_and_lists_are_replaced(tmp_path: Path) -> None:
    file = write(tmp_path, "server: {port: 9001}\nmodels: [{name: m, source: 'org/m'}]\n")
    settings = load_settings("laptop", file, {"server": {"host": "0.0.0.0"}})
    base = load_settings("laptop")
    assert settings.server.port == 9001
    assert settings.server.host == "0.0.0.0"
    assert settings.server.max_body_bytes == base.server.max_body_bytes
    assert [model.name for model in settings.models] == ["m"]


def test_a_flag_wins_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "server: {port: 9001}")
    assert load_settings("laptop", file, {"server": {"port": 9002}}).server.port == 9002


def test_settings_are_frozen() -> None:
    settings = load_settings("laptop")
    with pytest.raises(pydantic.ValidationError):
        settings.server.port = 1  # type: ignore[misc]


def test_names_are_unique_and_tenants_know_their_models(tmp_path: Path) -> None:
    twice = yaml.safe_dump({"models": [MODEL, MODEL]})
    assert problems(tmp_path, twice) == {"models[1].name": "'m' is defined twice"}
    unknown = yaml.safe_dump({"models": [MODEL], "tenants": [{"id": "t", "models": ["x"]}]})
    assert problems(tmp_path, unknown) == {"tenants[0].models[0]": "no model named 'x'"}


def test_what_weir_sets_itself_is_no_engine_argument(tmp_path: Path) -> None:
    tree = {"models": [MODEL | {"engine": {"args": {"tensor_parallel_size": 2}}}]}
    found = problems(tmp_path, yaml.safe_dump(tree))
    assert "models[].parallel.tensor" in found["models[0].engine.args"]


def test_an_embedded_redis_has_no_url(tmp_path: Path) -> None:
    found = problems(tmp_path, "redis: {mode: embedded, url: 'redis://x'}")
    assert "external" in found["redis"]


def test_a_model_is_found_by_name() -> None:
    settings = Settings.model_validate({"models": [MODEL]})
    model = settings.model("m")
    assert model is not None
    assert model.source == "builtin:teacher"
    assert settings.model("x") is None


_YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*Settings.model_fields, "other"]), _YAML))
def test_any_tree_is_either_good_or_refused_with_paths(tree: dict[str, object]) -> None:
    found: tuple[Problem, ...] = ()
    models: tuple[ModelSettings, ...] = ()
    try:
        models = parse_settings(dict(tree), "test").models
    except SettingsError as error:
        found = error.problems
    assert bool(models) != bool(found)
    assert all(problem.path and problem.message for problem in found)


def test_read_tree_keeps_the_files_own_values(tmp_path: Path) -> None:
    assert read_tree(write(tmp_path, "a: {b: [1, two]}")) == {"a": {"b": [1, "two"]}}
