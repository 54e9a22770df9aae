"""From settings to rules; and that bad settings name their key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from features.enrichment import compile_rules
from weir.errors import ConfigError
from weir.settings import SettingsError, load_settings
from weir.tokens import SharedSecret

VIEWS = {"v": {"features": {"f": {}}}}
SERVICES = {
    "desk": {
        "long_tail_view": "made",
        "views": {
            "profile": {"features": {"tier": {"default": "bronze"}, "points": {"type": "int"}}},
            "made": {"freshness_s": 60, "optional": True, "features": {"tone": {}}},
        },
    }
}
CLAIM = {"entity": "claim: sub in x-token"}
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
        ({"token": {"issuer": "x"}}, r"token: only for an entity from a claim"),
        ({**CLAIM, "token": {"jwks_url": "http://id.example/keys"}}, r"jwks_url: expected https"),
        (
            {**CLAIM, "token": {"jwks_url": "https://id/k", "jwks_file": "k"}},
            r"jwks_file: the keys are in jwks_url already",
        ),
        (
            {**CLAIM, "token": {"jwks_file": "k", "algorithms": ["HS256"]}},
            r"token.algorithms: hS256 has no public key",
        ),
        (
            {**CLAIM, "token": {"jwks_file": "k"}, "claim_secret_env": "X"},
            r"claim_secret_env: the token's public keys are given already",
        ),
        ({"budget_ms": 0}, r"features.enrich\[0\].budget_ms"),
        ({"placement": "middle"}, r"features.enrich\[0\].placement"),
        ({"models": ["gpt"]}, r"features.enrich\[0\].models\[0\]: no model named 'gpt'"),
        ({"tenants": ["nobody"]}, r"features.enrich\[0\].tenants\[0\]: no tenant named 'nobody'"),
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
            {"keys": {"id": {"type": "double"}}, "views": VIEWS},
            r"features.services.desk.keys.id.type: an entity of type double cannot be looked up",
        ),
        (
            {"keys": {"id": {"type": "bytes"}}, "views": VIEWS},
            r"keys.id.type: an entity of type bytes cannot be looked up: a request cannot carry it",
        ),
        ({"keys": {"id": {"type": "date"}}, "views": VIEWS}, r"keys.id.type: input should be"),
        (
            {"keys": {"id": {"type": "int64", "value": "tenant"}}, "views": VIEWS},
            r"keys.id: value: tenant is text, and the type is int64",
        ),
        ({"keys": {"a;b": {}}, "views": VIEWS}, r"features.services.desk.keys"),
        (
            {"keys": {"t": {"value": "tenant"}}, "views": VIEWS},
            r"features.services.desk: keys: at least one has to come from the request",
        ),
        ({"project": "a b", "views": VIEWS}, r"features.services.desk.project"),
        (
            {"on_demand": [{"function": "nothing", "features": {"g": {}}}], "views": VIEWS},
            r"on_demand\[0\].function",
        ),
        (
            {
                "on_demand": [{"function": "m:f", "mode": "pandas", "features": {"g": {}}}],
                "views": VIEWS,
            },
            r"on_demand\[0\].mode: pandas cannot be run for a request",
        ),
        (
            {"on_demand": [{"function": "m:f", "features": {"f": {}}}], "views": VIEWS},
            r"the feature 'f' is in two views",
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
    rule = {**RULE, **CLAIM, "claim_secret_env": "DESK_SECRET"}
    found = compile_rules(settings([rule]), {"DESK_SECRET": "s" * 32}).find("stub", "acme")
    assert found is not None
    assert found.source.verifier is not None
    assert found.source.verifier.keys == SharedSecret(b"s" * 32)
    with pytest.raises(ConfigError, match="DESK_SECRET has 31 bytes; HS256 needs at least 32"):
        compile_rules(settings([rule]), {"DESK_SECRET": "s" * 31})


def test_an_issuers_keys_are_read_when_the_rules_are_made(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    rules = [{**RULE, **CLAIM, "token": {"jwks_file": str(file)}}] * 2
    with pytest.raises(ConfigError, match=r"features.enrich\[0\].token.jwks_file"):
        compile_rules(settings(rules), {})
    file.write_text('{"keys": []}')
    with pytest.raises(ConfigError, match="no public key for RS256 or ES256"):
        compile_rules(settings(rules), {})
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    file.write_text(json.dumps({"keys": [ECAlgorithm.to_jwk(public, as_dict=True)]}))
    assert len(compile_rules(settings(rules), {}).key_sets) == 1


def test_keys_that_do_not_hold_the_tenant_need_tenants_by_name() -> None:
    services = {"desk": {"keys": {"id": {"type": "int64"}}, "views": VIEWS}}
    with pytest.raises(SettingsError, match=r"enrich\[0\].tenants: the keys of 'desk' do not hold"):
        settings([RULE], services=services)
    book = compile_rules(settings([{**RULE, "tenants": ["acme"]}], services=services), {})
    assert book.find("stub", "acme") is not None
    assert book.find("stub", "beta") is None
    assert book.find("stub", "beta", {"other"}) is None
    assert book.find("stub", "beta", {RULE["service"]}) is not None


def test_a_function_of_ones_own_is_found_when_the_rules_are_made() -> None:
    made = {"features": {"length": {"type": "int"}}}
    services = {"desk": {"views": VIEWS, "on_demand": [{**made, "function": "os:nothing"}]}}
    with pytest.raises(ConfigError, match=r"services.desk.on_demand\[0\].function: os:nothing"):
        compile_rules(settings([RULE], services=services), {})


@pytest.mark.parametrize(
    ("features", "path"),
    [
        ({"redis_url": "http://x"}, r"features.redis_url: expected redis://HOST"),
        ({"redis_url": "redis+cluster://a/3"}, r"a cluster has no database other than 0"),
        ({"redis_url": "redis+sentinel://a:1"}, r"the master's name is missing"),
        ({"redis_url": "redis://a,b"}, r"several hosts are for"),
        ({"redis_url": "redis://a", "redis_tls": {}}, r"redis_tls: redis_url has no TLS"),
        ({"redis_tls": {"key_file": "x"}}, r"features.redis_tls: cert_file: missing"),
    ],
)
def test_a_store_that_cannot_be_is_refused_with_the_settings(
    features: dict[str, Any], path: str
) -> None:
    with pytest.raises(SettingsError, match=path):
        settings([RULE], **features)
