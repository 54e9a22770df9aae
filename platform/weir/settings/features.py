"""The ``features`` section: what is looked up, for whom, and how it gets into the prompt."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
FeatureType = Literal["string", "int", "float", "bool", "strings", "ints", "floats", "bools"]
Default = str | bool | int | float | tuple[str, ...] | None
_ENTITY = re.compile(
    r"(?:header: *[A-Za-z0-9-]+|body: *metadata\.[^\s.]+|claim: *[^\s]+ +in +[A-Za-z0-9-]+)"
)
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class FeatureSettings(_Section):
    """One feature. ``default`` stands in when it cannot be had."""

    type: FeatureType = "string"
    default: Default = None

    @model_validator(mode="after")
    def _default_is_of_the_type(self) -> Self:
        if self.default is None:
            return self
        kinds = _PYTHON_TYPES.get(self.type)
        good = isinstance(self.default, tuple) if kinds is None else type(self.default) in kinds
        if not good:
            raise ValueError(f"default: {self.default!r} is no {self.type}")
        return self


class FeatureViewSettings(_Section):
    """A feature view; values older than ``freshness_s`` are not used.

    ``optional``: entities may be without it, and a row without it counts as whole.
    """

    features: dict[Name, FeatureSettings] = Field(min_length=1)
    freshness_s: float | None = Field(None, gt=0)
    optional: bool = False


class FeatureServiceSettings(_Section):
    """Views that are read together for one entity.

    An entity without fresh values in ``long_tail_view`` is long-tail.
    """

    views: dict[Name, FeatureViewSettings] = Field(min_length=1)
    long_tail_view: Name | None = None

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = [feature for view in self.views.values() for feature in view.features]
        if twice := next((n for n in names if names.count(n) > 1), None):
            raise ValueError(f"the feature {twice!r} is in two views")
        if self.long_tail_view is not None and self.long_tail_view not in self.views:
            raise ValueError(f"long_tail_view: no view named {self.long_tail_view!r}")
        return self


class EnrichSettings(_Section):
    """One rule; the first that fits a request's model and tenant is used (empty lists fit all)."""

    models: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    service: Name
    entity: str
    claim_secret_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = None
    budget_ms: float = Field(5.0, ge=1.0, le=10_000.0)
    required: bool = False
    template: str = Field("support_desk", min_length=1)
    placement: Literal["after_system", "before_system", "last_user"] = "after_system"

    @field_validator("entity")
    @classmethod
    def _names_a_source(cls, entity: str) -> str:
        if not _ENTITY.fullmatch(entity):
            raise ValueError(
                "expected 'header: NAME', 'body: metadata.KEY' or 'claim: NAME in HEADER'"
            )
        return entity

    @model_validator(mode="after")
    def _claims_are_verified(self) -> Self:
        is_claim = self.entity.startswith("claim:")
        if is_claim and self.claim_secret_env is None:
            raise ValueError("claim_secret_env: a claim needs the variable with the HS256 secret")
        if not is_claim and self.claim_secret_env is not None:
            raise ValueError("claim_secret_env: only for an entity from a claim")
        return self


class FeatureCacheSettings(_Section):
    """Rows kept in each gateway; 0 turns it off."""

    entries: int = Field(10_000, ge=0)
    ttl_ms: float = Field(1000.0, ge=0)
    negative_ttl_ms: float = Field(1000.0, ge=0)


class FeaturesSettings(_Section):
    """Online enrichment. ``redis_url``: another Redis than the platform's."""

    enabled: bool = False
    redis_url: str | None = None
    cache: FeatureCacheSettings = FeatureCacheSettings()
    services: dict[Name, FeatureServiceSettings] = Field(default_factory=dict)
    enrich: tuple[EnrichSettings, ...] = ()

    @model_validator(mode="after")
    def _services_are_known(self) -> Self:
        for number, rule in enumerate(self.enrich):
            if rule.service not in self.services:
                raise ValueError(f"enrich[{number}].service: no service named {rule.service!r}")
        return self

    def require_known(self, models: Collection[str], tenants: Collection[str]) -> None:
        """Raises: ValueError: a rule is for a model or tenant that there is not."""
        for number, rule in enumerate(self.enrich):
            for kind, names, known in (
                ("models", rule.models, models),
                ("tenants", rule.tenants, tenants),
            ):
                if unknown := next((n for n in names if n not in known), None):
                    raise ValueError(
                        f"features.enrich[{number}].{kind}: no {kind[:-1]} named {unknown!r}"
                    )
