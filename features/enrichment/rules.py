"""From settings to rules that the request path can use as they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from features.enrichment.placement import Placement
from features.enrichment.source import EntitySource
from features.enrichment.template import Template, build_template
from features.join_keys import EntityKeys, JoinKey
from features.online.on_demand import ComputedFeature, Transformation, import_function
from features.online.service import FeatureSpec, ServicePlan, ServiceSpec, ViewSpec
from features.online.values import FeatureValue
from weir.errors import ConfigError
from weir.key_sets import KeySet, KeySetSettings, from_file, from_url
from weir.settings.examine import path_of
from weir.settings.features import (
    EnrichSettings,
    FeatureServiceSettings,
    FeatureSettings,
    FeaturesSettings,
    TokenSettings,
)
from weir.settings.section import Finding, Place
from weir.tokens import MIN_SECRET_BYTES, SharedSecret, TokenRules, TokenVerifier

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EnrichRule:
    """What is done for the requests that it fits. Empty sets fit all."""

    models: frozenset[str]
    tenants: frozenset[str]
    plan: ServicePlan
    source: EntitySource
    budget_s: float
    required: bool
    template: Template
    placement: Placement

    def fits(self, model: str, tenant_id: str, services: Collection[str]) -> bool:
        """Whether the rule is for this model and tenant. ``services``: what the tenant may read
        although the rule is for others."""
        if self.models and model not in self.models:
            return False
        return not self.tenants or tenant_id in self.tenants or self.plan.spec.name in services


class RuleBook:
    """Rules in order; the first that fits is used. ``key_sets`` are to be started and closed."""

    def __init__(self, rules: tuple[EnrichRule, ...], key_sets: tuple[KeySet, ...] = ()) -> None:
        self.rules = rules
        self.key_sets = key_sets

    def find(self, model: str, tenant_id: str, services: Collection[str] = ()) -> EnrichRule | None:
        """The first rule that fits; see :meth:`EnrichRule.fits`."""
        for rule in self.rules:
            if rule.fits(model, tenant_id, services):
                return rule
        return None


def compile_rules(settings: FeaturesSettings, environment: Mapping[str, str]) -> RuleBook:
    """All rules, or none where features are not enabled.

    Raises:
        ConfigError: a template is not one, or a claim's secret is not in the environment; the
            message begins with the key.
    """
    book, found = _compile(settings, environment)
    if found:
        told = (f"{path_of(('features', *each.place))}: {each.message}" for each in found)
        raise ConfigError("; ".join(told))
    return book


def rule_findings(
    settings: FeaturesSettings, environment: Mapping[str, str]
) -> tuple[Finding, ...]:
    """Everything that :func:`compile_rules` would refuse, seen from the ``features`` section."""
    return _compile(settings, environment)[1]


class _UnusableError(Exception):
    """Where in the section, and why."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.finding = Finding(place, message)


def _compile(
    settings: FeaturesSettings, environment: Mapping[str, str]
) -> tuple[RuleBook, tuple[Finding, ...]]:
    if not settings.enabled:
        return RuleBook(()), ()
    found: list[Finding] = []
    tokens = _Tokens(environment)
    plans = {
        name: _attempt(found, partial(_plan, name, service))
        for name, service in settings.services.items()
    }
    rules = [
        _rule(("enrich", number), rule, plans[rule.service], settings, tokens, found)
        for number, rule in enumerate(settings.enrich)
    ]
    whole = tuple(rule for rule in rules if rule is not None)
    return RuleBook(whole, tuple(tokens.key_sets.values())), tuple(found)


def _attempt(found: list[Finding], make: Callable[[], T]) -> T | None:
    try:
        return make()
    except _UnusableError as error:
        found.append(error.finding)
        return None


def _rule(
    place: Place,
    rule: EnrichSettings,
    plan: ServicePlan | None,
    settings: FeaturesSettings,
    tokens: _Tokens,
    found: list[Finding],
) -> EnrichRule | None:
    """None where something is wrong, which is then added to ``found``."""
    before = len(found)
    template = _attempt(found, partial(_template, place, rule.template))
    verifier = _attempt(found, partial(tokens.verifier, place, rule))
    if plan is None or template is None or len(found) > before:
        return None
    service = settings.services[rule.service]
    keys = tuple(JoinKey(name, key.type, key.value) for name, key in service.keys.items())
    return EnrichRule(
        models=frozenset(rule.models),
        tenants=frozenset(rule.tenants),
        plan=plan,
        source=EntitySource.parse(rule.entity, EntityKeys(keys, service.project), verifier),
        budget_s=rule.budget_ms / 1000.0,
        required=rule.required,
        template=template,
        placement=rule.placement,
    )


def _template(place: Place, text: str) -> Template:
    try:
        return build_template(text)
    except ValueError as error:
        raise _UnusableError((*place, "template"), str(error)) from None


class _Tokens:
    """Verifiers of claims; rules with the same keys share one key set."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.key_sets: dict[tuple[str, KeySetSettings], KeySet] = {}

    def verifier(self, place: Place, rule: EnrichSettings) -> TokenVerifier | None:
        """Raises: _UnusableError: the secret is not there or too short, the file has no keys."""
        token = rule.token or TokenSettings()
        rules = TokenRules(token.issuer, token.audience, token.leeway_s)
        if rule.claim_secret_env is not None:
            return TokenVerifier(SharedSecret(self._secret(place, rule.claim_secret_env)), rules)
        if token.has_keys:
            return TokenVerifier(self._key_set(place, token), rules)
        return None

    def _secret(self, place: Place, name: str) -> bytes:
        secret = self._environment.get(name, "").encode()
        where = (*place, "claim_secret_env")
        if not secret:
            raise _UnusableError(where, f"the environment has no {name}")
        if len(secret) < MIN_SECRET_BYTES:
            raise _UnusableError(
                where,
                f"{name} has {len(secret)} bytes; HS256 needs at least {MIN_SECRET_BYTES} "
                "(RFC 7518, section 3.2)",
            )
        return secret

    def _key_set(self, place: Place, token: TokenSettings) -> KeySet:
        how = KeySetSettings(token.algorithms, token.refresh_s, token.min_pause_s)
        origin = token.jwks_url or token.jwks_file or ""
        if (origin, how) not in self.key_sets:
            made = from_url(origin, how) if token.jwks_url else from_file(Path(origin), how)
            if token.jwks_file is not None:
                try:
                    made.load()
                except (OSError, ValueError) as error:
                    where = (*place, "token", "jwks_file")
                    raise _UnusableError(where, str(error)) from None
            self.key_sets[origin, how] = made
        return self.key_sets[origin, how]


def _plan(name: str, service: FeatureServiceSettings) -> ServicePlan:
    views = tuple(
        ViewSpec(view_name, _specs(view.features), view.freshness_s, view.optional)
        for view_name, view in service.views.items()
    )
    computed = []
    for number, each in enumerate(service.on_demand):
        try:
            function = import_function(each.function)
        except ValueError as error:
            where = ("services", name, "on_demand", number, "function")
            raise _UnusableError(where, str(error)) from None
        made = tuple(
            ComputedFeature(feature_name, feature.type, _default(feature))
            for feature_name, feature in each.features.items()
        )
        computed.append(Transformation(function, made))
    return ServicePlan(ServiceSpec(name, views, service.long_tail_view, tuple(computed)))


def _specs(features: Mapping[str, FeatureSettings]) -> tuple[FeatureSpec, ...]:
    return tuple(FeatureSpec(name, each.type, _default(each)) for name, each in features.items())


def _default(feature: FeatureSettings) -> FeatureValue:
    default = feature.default
    return list(default) if isinstance(default, tuple) else default
