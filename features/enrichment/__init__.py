"""Enrichment, pure: whose features, how they are rendered, and where the text goes."""

from features.enrichment.outcome import Enrichment, EntityNotFoundError, EntityRequiredError
from features.enrichment.placement import Edit, Placement, place
from features.enrichment.rules import EnrichRule, RuleBook, compile_rules, rule_findings
from features.enrichment.source import EntitySource, Found
from features.enrichment.template import Template, TemplateFailedError, build_template

__all__ = [
    "Edit",
    "EnrichRule",
    "Enrichment",
    "EntityNotFoundError",
    "EntityRequiredError",
    "EntitySource",
    "Found",
    "Placement",
    "RuleBook",
    "Template",
    "TemplateFailedError",
    "build_template",
    "compile_rules",
    "place",
    "rule_findings",
]
