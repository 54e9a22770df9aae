"""From settings to rules; and that bad settings name their key."""

from __future__ import annotations

from typing import Any

import pytest

from features.enrichment import compile_rules
from weir.errors import ConfigError
from weir.settings import SettingsError, load_settings

SERVICES = {
    "desk": {
        "long_tail_view": "made",
        "views": {
            "profile": {"features": {"tier": {"default": "bronze"}, "points": {"type": "int"}}},
            "made": {"freshness_s": 60, "optional": True, "features": {"tone": {}}},
        },
    }
}
RULE = {"service": "desk", "entity": "header: x-weir-entity"}


def settings(rules: list[dict[str, Any]], **features: Any) -> Any:
    section = {"enabled": True, "services": SERVICES, "enrich": rules, **features}
    tenants = [{"id": "acme"}, {"id": "beta"}]
    return load_settings("stub", overlay={"features": section, "tenants": tenants}).features


def test_the_first_rule_that_fits_is_used() -> None:
    rules = [
        {**RULE, "tenants": ["acme"], "budget_ms": 1},
        {**RULE, "models": ["stub"], "budget_ms": 2},
    ]
    book = compile_rules(settings(rules), {})
    found = [book.find(*pair) for pair in (("stub", "acme"), ("stub", "beta"), ("other", "beta"))]
    assert [rule and rule.budget_s for rule in found] == [0.001, 0.002, None]


def test_a_service_becomes_a_plan() -> None:
    rule = compile_rules(settings([RULE]), {}).find("stub", "acme")
    assert rule is not None
    assert rule.plan.n_fields == 5
    assert rule.plan.spec.views[1].optional
    row = rule.plan.without("missing")
    assert row.values == {"tier": "bronze", "points": None, "tone": None}
    assert row.long_tail


def test_nothing_is_done_unless_enabled() -> None:
    assert compile_rules(settings([RULE], enabled=False), {}).find("stub", "acme") is None


def test_the_laptops_rule_is_the_support_desk() -> None:
    rule = compile_rules(load_settings("laptop").features, {}).find("weir-teacher", "demo")
    assert rule is not None
    assert rule.plan.spec.long_tail_view == "customer_generated"
    assert rule.placement == "after_system"


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ({"service": "other"}, r"enrich\[0\].service: no service named 'other'"),
        ({"entity": "cookie: x"}, r"features.enrich\[0\].entity: expected 'header: NAME'"),
        ({"entity": "claim: sub in x-token"}, r"claim_secret_env: a claim needs"),
        ({"claim_secret_env": "X"}, r"claim_secret_env: only for an entity from a claim"),
        ({"budget_ms": 0}, r"features.enrich\[0\].budget_ms"),
        ({"placement": "middle"}, r"features.enrich\[0\].placement"),
        ({"models": ["gpt"]}, r"features.enrich\[0\].models: no model named 'gpt'"),
        ({"tenants": ["nobody"]}, r"features.enrich\[0\].tenants: no tenant named 'nobody'"),
        ({"templat": "x"}, r"features.enrich\[0\].templat: unknown key"),
    ],
)
def test_a_bad_rule_names_its_key(rule: dict[str, Any], path: str) -> None:
    with pytest.raises(SettingsError, match=path):
        settings([{**RULE, **rule}])


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ({"views": {}}, r"features.services.desk.views"),
        ({"views": {"v": {"features": {}}}}, r"features.services.desk.views.v.features"),
        (
            {"views": {"v": {"features": {"f": {"type": "date"}}}}},
            r"features.services.desk.views.v.features.f.type",
        ),
        (
            {"views": {"v": {"features": {"f": {"type": "int", "default": "x"}}}}},
            r"features.services.desk.views.v.features.f: default: 'x' is no int",
        ),
        (
            {"views": {"v": {"freshness_s": 0, "features": {"f": {}}}}},
            r"features.services.desk.views.v.freshness_s",
        ),
        (
            {"views": {"v": {"features": {"f": {}}}, "w": {"features": {"f": {}}}}},
            r"features.services.desk: the feature 'f' is in two views",
        ),
        (
            {"long_tail_view": "x", "views": {"v": {"features": {"f": {}}}}},
            r"features.services.desk: long_tail_view: no view named 'x'",
        ),
    ],
)
def test_a_bad_service_names_its_key(service: dict[str, Any], path: str) -> None:
    with pytest.raises(SettingsError, match=path):
        settings([], services={"desk": service})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"template": "{% if %}"}, r"features.enrich\[0\].template: line 1"),
        ({"template": "nothing"}, r"features.enrich\[0\].template: no template named"),
        (
            {"entity": "claim: sub in x-token", "claim_secret_env": "DESK_SECRET"},
            r"features.enrich\[0\].claim_secret_env: the environment has no DESK_SECRET",
        ),
    ],
)
def test_what_only_the_room_can_tell_names_its_key_too(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compile_rules(settings([{**RULE, **rule}]), {})


def test_a_claims_secret_comes_from_the_environment() -> None:
    rule = {**RULE, "entity": "claim: sub in x-token", "claim_secret_env": "DESK_SECRET"}
    found = compile_rules(settings([rule]), {"DESK_SECRET": "s"}).find("stub", "acme")
    assert found is not None
    assert found.source.secret == b"s"
