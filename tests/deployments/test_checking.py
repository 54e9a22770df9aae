"""`weir config check` and the supervisor refuse the same settings, all problems at once."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from deployments.checking import checked, main
from weir.cli.effective import SettingsFlags, effective_settings, with_demo_tenant
from weir.cli.exits import ExitCode
from weir.cli.main import app
from weir.errors import ConfigError
from weir.settings import Settings, SettingsError, parse_settings

#: What a file that nothing is wrong with has; every fault below is planted into it.
GOOD: dict[str, Any] = {
    "models": [
        {
            "name": "large",
            "source": "builtin:teacher",
            "fallback": {"student": "small"},
            "routing": {"policy": "weighted", "params": {"scorers": {"kv-headroom": 1}}},
        },
        {"name": "small", "source": "builtin:student"},
    ],
    "tenants": [{"id": "shop", "models": ["large"]}, {"id": "bank"}],
    "admission": {"limits": {"kv": {"fill": 0.9}, "places": None}},
}


@dataclass(frozen=True)
class Fault:
    """``value`` at ``place`` (keys and positions, joined by dots) is answered at ``path``."""

    place: str
    value: Any
    path: str
    message: str = ""


FAULTS = [
    Fault("servr", {}, "servr", "unknown key; did you mean 'server'?"),
    Fault("server", {"prot": 1}, "server.prot", "unknown key; did you mean 'port'?"),
    Fault("redis", {"mode": "sometimes"}, "redis.mode"),
    Fault("log", {"level": "loud"}, "log.level"),
    Fault("admission.nonsense", 1, "admission.nonsense", "unknown key"),
    Fault("admission.ageing_every", 0, "admission.ageing_every"),
    Fault("admission.limits.kvv", {}, "admission.limits.kvv", "did you mean 'kv'? Known: "),
    Fault("admission.limits.kv.fill", 2, "admission.limits.kv.fill", "less than or equal to 1"),
    Fault("admission.limits.kv.fil", 1, "admission.limits.kv.fil", "did you mean 'fill'?"),
    Fault("admission.tenant_weights", {"shp": 1}, "admission.tenant_weights.shp", "'shop'"),
    Fault("models.0.repliccas", 1, "models[0].repliccas", "did you mean 'replicas'?"),
    Fault("models.0.routing.params.scorers.kv-headrom", 1,
          "models[0].routing.params.scorers.kv-headrom", "did you mean 'kv-headroom'?"),
    Fault("models.0.routing.params.scorer", {}, "models[0].routing.params.scorer", "'scorers'?"),
    Fault("models.0.fallback.cost", {"tenant_budgets_usd": {"bnk": 1}},
          "models[0].fallback.cost", "is gone: a budget is the tenant's"),
    Fault("models.0.fallback.failure", {"classes": ["bach"]},
          "models[0].fallback.failure.classes[0]", "no priority class named 'bach'"),
    Fault("models.0.speculative", {"draft": "builtin:studnt"},
          "models[0].speculative.draft", "did you mean 'student'?"),
    Fault("models.1.source", "builtin:doesnotexist", "models[1].source", "ships no model"),
    Fault("models.1.routing", {"policy": "nope"}, "models[1].routing.policy", "known: least-out"),
    Fault("models.1.pools", [{"name": "p"}, {"name": "p"}], "models[1].pools[1].name", "twice"),
    Fault("models.1.adapters", [{"name": "a", "source": "./nowhere", "tenants": ["shop"]}],
          "models[1].adapters[0].source", "no adapter folder"),
    Fault("models.1.parallel", {"pipeline": 2}, "models[1].parallel.pipeline", "CPU build"),
    Fault("tenants.0.classes", ["interactive", "bulk"], "tenants[0].classes[1]", "'bulk'"),
    Fault("tenants.1.models", ["smal"], "tenants[1].models[0]", "did you mean 'small'?"),
    Fault("tenants.1.model_quotas", {"larg": {}}, "tenants[1].model_quotas.larg", "'large'?"),
    Fault("tenants.1.adapters", ["large:warm"], "tenants[1].adapters[0]", "no adapter named"),
    Fault("tenants.1.features", ["support_dsk"], "tenants[1].features[0]", "'support_desk'?"),
    Fault("models.0.price", {"class_factors": {"bach": 1}},
          "models[0].price.class_factors.bach", "'batch'?"),
    Fault("prices", {"hours": [{"usd_per_hour": 1}, {"usd_per_hour": 2}]}, "prices.hours[1]"),
    Fault("batches", {"priority_class": "bach"}, "batches.priority_class", "'batch'?"),
    Fault("database", {"url": "mysql://x"}, "database.url", "postgresql"),
    Fault("features", {"enrich": [{"service": "nope", "entity": "header: x"}]},
          "features.enrich[0].service", "no service named 'nope'"),
]  # fmt: skip
# Each looks at what the other would change.
APART = [{"models.0.routing.params.scorer", "models.0.routing.params.scorers.kv-headrom"}]


def planted(faults: list[Fault]) -> dict[str, Any]:
    tree = copy.deepcopy(GOOD)
    for fault in faults:
        put(tree, fault.place, fault.value)
    return tree


def put(tree: dict[str, Any], place: str, value: Any) -> None:
    *above, last = place.split(".")
    node: Any = tree
    for part in above:
        node = node[int(part)] if part.isdigit() else node[part]
    node[last] = copy.deepcopy(value)


def check(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["config", "check", *arguments])


def write(folder: Path, tree: Any) -> Path:
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`weir config check` without a process of its own for each call, and without reading all
    weights each time."""

    def run(arguments: list[str]) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert main(list(arguments)) == 0
        return printed.getvalue()

    monkeypatch.setattr("weir.cli.config._run", run)
    monkeypatch.setattr("deployments.sources.verify_folder", lambda *_: None)


def test_everything_at_once_through_the_command(tmp_path: Path) -> None:
    """In a process of its own, as a user runs it."""
    apart = set.union(*APART)
    faults = [fault for fault in FAULTS if fault.place not in apart]
    result = check(str(write(tmp_path, planted(faults))))
    assert result.exit_code != 0
    assert isinstance(result.exception, SettingsError)
    found = {problem.path: problem.message for problem in result.exception.problems}
    assert set(found) == {fault.path for fault in faults}
    for fault in faults:
        assert fault.message in found[fault.path], fault


def test_what_the_review_found(tmp_path: Path, in_process: None) -> None:
    tree = {
        "admission": {"nonsense": 1, "classes": {"interactive": {"order": -3}}},
        "models": [
            {"name": "m", "source": "builtin:doesnotexist", "routing": {"policy": "nope"}},
        ],
    }
    result = check(str(write(tmp_path, tree)))
    assert isinstance(result.exception, SettingsError)
    assert {problem.path for problem in result.exception.problems} == {
        "admission.nonsense",
        "admission.classes.interactive.order",
        "admission.classes.interactive.urgency",
        "models[0].source",
        "models[0].routing.policy",
    }


def test_a_good_file_is_good(tmp_path: Path, in_process: None) -> None:
    result = check(str(write(tmp_path, GOOD)))
    assert result.exit_code == 0
    assert "good over profile laptop (models: large, small)" in result.output


@pytest.mark.parametrize("profile", ["laptop", "gpu", "stub"])
def test_every_profile_is_good(tmp_path: Path, in_process: None, profile: str) -> None:
    assert check(str(write(tmp_path, {})), "--profile", profile).exit_code == 0


def test_a_file_or_profile_that_is_not_there(tmp_path: Path, in_process: None) -> None:
    absent = check(str(tmp_path / "absent.yaml"))
    assert "(file): " in str(absent.exception)
    assert "known: gpu, laptop, stub" in str(
        check(str(write(tmp_path, {})), "--profile", "x").exception
    )


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sets(st.sampled_from(range(len(FAULTS)))))
def test_all_planted_faults_are_found_and_nothing_else(
    tmp_path: Path, in_process: None, chosen: set[int]
) -> None:
    """By the command, and by what the supervisor reads after `weir up` has written it."""
    faults = [FAULTS[number] for number in sorted(chosen)]
    if any({fault.place for fault in faults} >= pair for pair in APART):
        return
    file = write(tmp_path, planted(faults))
    result = check(str(file))
    paths = {fault.path for fault in faults}
    if not paths:
        assert result.exit_code == 0
        assert as_supervised(file)
        return
    assert isinstance(result.exception, SettingsError)
    assert {problem.path for problem in result.exception.problems} == paths
    with pytest.raises(ConfigError):
        as_supervised(file)


def as_supervised(file: Path) -> Settings:
    """`weir up` writes what it read into the state folder; the supervisor checks that. (YAML in
    between changes nothing: tests/weir/cli/test_effective.py.)

    Raises:
        ConfigError: either of them refuses it.
    """
    effective = with_demo_tenant(effective_settings(SettingsFlags(config=file)), "weir_k")
    return checked(effective.model_dump(mode="json"), "state")


#: Values that do, and values that do not, alone or beside each other.
CHANGES: dict[str, tuple[Any, ...]] = {
    "admission.enabled": (True, False, "x"),
    "admission.limits.kv": (None, {}, {"fill": 0.5}, {"fill": 0}, 3),
    "admission.limits.prefill": (None, {"tokens": 1}, {"tokens": 0.5}),
    "admission.classes": (
        {"a": {"urgency": 0}}, {"interactive": {"urgency": 0}, "b": {"urgency": 1}}, {}, {"a": {}},
    ),
    "admission.tenant_weights": ({"shop": 2}, {"nobody": 1}, {"demo": 1}, {}),
    "admission.min_retry_after_s": (1, 60, 61),
    "models.0.fallback.student": ("small", "large", "nobody"),
    "models.0.fallback.cost": (
        {"price_cap_usd": 1}, {"classes": ["interactive"]}, {"classes": ["a"]}, {"classes": ["b"]},
    ),
    "models.0.fallback.cascade": ({}, {"enabled": True}, {"first_tokens": 0}),
    "models.0.routing.policy": ("weighted", "weir", "best"),
    "models.0.routing.params": ({}, {"scorers": {"decode-load": 1}}, {"overlap_weight": 1}),
    "models.0.routing.disaggregation": ({}, {"params": {"pairs_of_mixed": True}}, {"rule": "x"}),
    "models.1.pools": ([], [{"name": "p"}], [{"name": "p", "role": "decode"}]),
    "models.1.replicas": (0, 1, 2, -1),
    "models.1.source": ("builtin:student", "org/model", "builtin:nothing", ""),
    "models.1.parallel": ({}, {"tensor": 2}, {"data": 2}),
    "models.1.accelerator": (None, "H100"),
    "models.1.adapters": ([], [{"name": "a", "source": "./nowhere"}]),
    "tenants": ([], [{"id": "demo"}], [{"id": "a"}, {"id": "a"}]),
    "tenants.0.classes": ([], ["interactive"], ["a"], ["b", "interactive"]),
    "tenants.1.models": (["large"], ["small"], ["x"]),
    "features": ({}, {"enabled": False}, {"services": {}}),
    "redis": ({}, {"mode": "external"}, {"mode": "embedded", "url": "redis://x"}),
}  # fmt: skip


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_what_check_passes_the_supervisor_passes(
    tmp_path: Path, in_process: None, data: st.DataObject
) -> None:
    tree = copy.deepcopy(GOOD)
    for place in data.draw(st.lists(st.sampled_from(sorted(CHANGES)), max_size=3, unique=True)):
        if place.startswith("tenants.") and len(tree["tenants"]) < 2:
            continue
        put(tree, place, data.draw(st.sampled_from(CHANGES[place]), label=place))
    file = write(tmp_path, tree)
    if check(str(file)).exit_code == 0:
        assert as_supervised(file)
    else:
        with pytest.raises(ConfigError):
            as_supervised(file)


def test_the_supervisor_checks_before_it_starts_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that is well formed, and whose model is not there."""
    from deployments import platform

    started: list[object] = []
    monkeypatch.setattr(platform.Cluster, "prepare_environment", started.append)
    tree = {"models": [{"name": "m", "source": "builtin:nobody", "routing": {"policy": "nope"}}]}
    file = write(tmp_path, tree)
    supervisor = platform.Platform(parse_settings(tree, "test"), file, tmp_path)
    with pytest.raises(SettingsError) as caught:
        supervisor.start()
    assert started == []
    paths = {problem.path for problem in caught.value.problems}
    assert paths == {"models[0].routing.policy", "models[0].source"}


def test_sources_are_relative_to_the_file(tmp_path: Path, in_process: None) -> None:
    (tmp_path / "mine").mkdir()
    file = write(tmp_path, {"models": [{"name": "m", "source": "./mine"}]})
    assert "has no config.json" in str(check(str(file)).exception)
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert "has no weights" in str(check(str(file)).exception)
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"")
    assert check(str(file)).exit_code == 0
    for engine in ({"mode": "stub"}, {"args": {"load_format": "dummy"}}):
        (tmp_path / "mine" / "model.safetensors").unlink(missing_ok=True)
        tree = {"models": [{"name": "m", "source": "./mine", "engine": engine}]}
        assert check(str(write(tmp_path, tree))).exit_code == 0


def test_another_machine_may_have_the_files_and_secrets(tmp_path: Path, in_process: None) -> None:
    model = {"name": "m", "source": "./on-the-cluster", "routing": {"policy": "nope"}}
    file = str(write(tmp_path, {"models": [model]}))
    for flags, paths in (([], {"routing.policy", "source"}), (["--static"], {"routing.policy"})):
        result = check(file, *flags)
        assert isinstance(result.exception, SettingsError)
        assert {problem.path for problem in result.exception.problems} == {
            f"models[0].{path}" for path in paths
        }


def test_a_cascade_needs_to_know_when_an_answer_stands(tmp_path: Path, in_process: None) -> None:
    student = tmp_path / "student"
    student.mkdir()
    (student / "config.json").write_text("{}")
    (student / "model.safetensors").write_bytes(b"")
    cascade = {"enabled": True}
    models = [
        {
            "name": "t",
            "source": "builtin:teacher",
            "fallback": {"student": "s", "cascade": cascade},
        },
        {"name": "s", "source": "./student"},
    ]
    result = check(str(write(tmp_path, {"models": models})))
    assert "models[0].fallback.cascade: s's manifest has no confidence" in str(result.exception)
    cascade |= {"first_tokens": 4, "threshold": -0.5}
    assert check(str(write(tmp_path, {"models": models}))).exit_code == 0


def test_secrets_templates_and_functions_are_looked_at(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_SECRET", raising=False)
    rule = {
        "service": "support_desk",
        "entity": "claim: sub in x-token",
        "claim_secret_env": "NO_SUCH_SECRET",
        "template": "{{ name",
    }
    services = {
        "own": {
            "views": {"v": {"features": {"f": {}}}},
            "on_demand": [{"function": "no_such_module:f", "features": {"g": {}}}],
        }
    }
    tree = {"features": {"enrich": [rule], "services": services}}
    result = check(str(write(tmp_path, tree)))
    assert isinstance(result.exception, SettingsError)
    assert {problem.path for problem in result.exception.problems} == {
        "features.services.own.on_demand[0].function",
        "features.enrich[0].template",
        "features.enrich[0].claim_secret_env",
    }


def test_the_process_fails_loudly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("weir.cli.config.MODULE", "no.such.module")
    result = check(str(write(tmp_path, {})))
    assert getattr(result.exception, "exit_code", None) == ExitCode.FAILURE
    assert "No module named" in str(result.exception)


def test_what_is_printed_is_one_object(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--profile", "laptop", "--", str(write(tmp_path, {"x": 1}))]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == [["x", "unknown key"]]
