"""From settings to rules that the request path can use as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from features.enrichment.placement import Placement
from features.enrichment.source import EntitySource
from features.enrichment.template import Template, build_template
from features.online.service import FeatureSpec, ServicePlan, ServiceSpec, ViewSpec
from weir.errors import ConfigError
from weir.settings.features import EnrichSettings, FeatureServiceSettings, FeaturesSettings


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

    def fits(self, model: str, tenant_id: str) -> bool:
        """Whether the rule is for this model and tenant."""
        return (not self.models or model in self.models) and (
            not self.tenants or tenant_id in self.tenants
        )


class RuleBook:
    """Rules in order; the first that fits is used."""

    def __init__(self, rules: tuple[EnrichRule, ...]) -> None:
        self._rules = rules
        self._known: dict[tuple[str, str], EnrichRule | None] = {}

    def find(self, model: str, tenant_id: str) -> EnrichRule | None:
        """Models and tenants come from settings, so what is remembered is bounded."""
        pair = model, tenant_id
        if pair not in self._known:
            self._known[pair] = next((r for r in self._rules if r.fits(model, tenant_id)), None)
        return self._known[pair]


def compile_rules(settings: FeaturesSettings, environment: Mapping[str, str]) -> RuleBook:
    """All rules, or none where features are not enabled.

    Raises:
        ConfigError: a template is not one, or a claim's secret is not in the environment; the
            message begins with the key.
    """
    if not settings.enabled:
        return RuleBook(())
    plans = {name: _plan(name, service) for name, service in settings.services.items()}
    return RuleBook(
        tuple(
            _rule(f"features.enrich[{number}]", rule, plans[rule.service], environment)
            for number, rule in enumerate(settings.enrich)
        )
    )


def _rule(
    path: str, rule: EnrichSettings, plan: ServicePlan, environment: Mapping[str, str]
) -> EnrichRule:
    secret = b""
    if rule.claim_secret_env is not None:
        secret = environment.get(rule.claim_secret_env, "").encode()
        if not secret:
            raise ConfigError(
                f"{path}.claim_secret_env: the environment has no {rule.claim_secret_env}"
            )
    try:
        template = build_template(rule.template)
    except ValueError as error:
        raise ConfigError(f"{path}.template: {error}") from None
    return EnrichRule(
        models=frozenset(rule.models),
        tenants=frozenset(rule.tenants),
        plan=plan,
        source=EntitySource.parse(rule.entity, secret),
        budget_s=rule.budget_ms / 1000.0,
        required=rule.required,
        template=template,
        placement=rule.placement,
    )


def _plan(name: str, service: FeatureServiceSettings) -> ServicePlan:
    views = tuple(
        ViewSpec(
            view_name,
            tuple(
                FeatureSpec(
                    feature_name,
                    feature.type,
                    list(feature.default)
                    if isinstance(feature.default, tuple)
                    else feature.default,
                )
                for feature_name, feature in view.features.items()
            ),
            view.freshness_s,
            view.optional,
        )
        for view_name, view in service.views.items()
    )
    return ServicePlan(ServiceSpec(name, views, service.long_tail_view))
