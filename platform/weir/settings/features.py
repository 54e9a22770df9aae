"""The ``features`` section: what is looked up, for whom, and how it gets into the prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from weir.settings.section import Finding, Section, refuse, unknown
from weir.store_url import parse_store_url

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
FeatureType = Literal["string", "int", "float", "bool", "strings", "ints", "floats", "bools"]
Default = str | bool | int | float | tuple[str, ...] | None
JoinKeyName = Annotated[str, Field(pattern=r"^[^\s;=%]{1,128}$")]
Project = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}$")]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
_ENTITY = re.compile(
    r"(?:header: *[A-Za-z0-9-]+|body: *metadata(?:\.[^\s.]+)?|claim: *[^\s]+ +in +[A-Za-z0-9-]+)"
)
_NO_KEYS = {
    "float": "Feast makes no keys of it",
    "double": "Feast makes no keys of it",
    "bool": "Feast makes no keys of it",
    "bytes": "a request cannot carry it",
}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}


class FeatureSettings(Section):
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


class FeatureViewSettings(Section):
    """A feature view; values older than ``freshness_s`` are not used.

    ``optional``: entities may be without it, and a row without it counts as whole.
    """

    features: dict[Name, FeatureSettings] = Field(min_length=1)
    freshness_s: float | None = Field(None, gt=0)
    optional: bool = False


class JoinKeySettings(Section):
    """A join key of Feast, with the type that its entity was registered with.

    ``value``: what it is made of. ``entity``: what the request says; ``tenant``: the tenant's id;
    ``tenant/entity``: both, escaped.
    """

    type: Literal["string", "int32", "int64", "unix_timestamp"] = "string"
    value: Literal["entity", "tenant", "tenant/entity"] = "entity"

    @field_validator("type", mode="before")
    @classmethod
    def _can_be_a_key(cls, kind: Any) -> Any:
        if isinstance(kind, str) and (why := _NO_KEYS.get(kind.lower())):
            raise ValueError(f"an entity of type {kind} cannot be looked up: {why}")
        return kind.lower() if isinstance(kind, str) else kind

    @model_validator(mode="after")
    def _a_tenant_is_text(self) -> Self:
        if self.value != "entity" and self.type != "string":
            raise ValueError(f"value: {self.value} is text, and the type is {self.type}")
        return self


class OnDemandSettings(Section):
    """Features that are computed when they are read, as by an on-demand feature view of Feast.

    ``function`` (``package.module:name``) is given the features that were read and returns those
    named here. It runs in the gateway for each look-up, one row at a time, as Feast's
    ``mode="python", singleton=True`` does it.
    """

    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    mode: Literal["python"] = "python"
    features: dict[Name, FeatureSettings] = Field(min_length=1)

    @field_validator("mode", mode="before")
    @classmethod
    def _one_row_at_a_time(cls, mode: Any) -> Any:
        if mode in ("pandas", "substrait"):
            raise ValueError(
                f"{mode} cannot be run for a request: write it in Python (singleton), or let "
                "Feast run it when it writes (write_to_online_store) and name it in views"
            )
        return mode


class FeatureServiceSettings(Section):
    """Views that are read together for one entity.

    An entity without fresh values in ``long_tail_view`` is long-tail. Without ``keys`` they are
    those of weir's own repository: ``entity``, a string of tenant and entity id.
    """

    views: dict[Name, FeatureViewSettings] = Field(min_length=1)
    on_demand: tuple[OnDemandSettings, ...] = ()
    long_tail_view: Name | None = None
    project: Project = "weir"
    keys: dict[JoinKeyName, JoinKeySettings] = Field(
        {"entity": JoinKeySettings(value="tenant/entity")}
    )

    @property
    def holds_tenant(self) -> bool:
        """Whether the keys keep the entities of tenants apart."""
        return any(key.value != "entity" for key in self.keys.values())

    @model_validator(mode="after")
    def _requests_name_something(self) -> Self:
        if all(key.value == "tenant" for key in self.keys.values()):
            raise ValueError("keys: at least one has to come from the request")
        return self

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = [feature for view in self.views.values() for feature in view.features]
        names += [feature for each in self.on_demand for feature in each.features]
        if twice := next((n for n in names if names.count(n) > 1), None):
            raise ValueError(f"the feature {twice!r} is in two views")
        if self.long_tail_view is not None and self.long_tail_view not in self.views:
            raise ValueError(f"long_tail_view: no view named {self.long_tail_view!r}")
        return self


class TokenSettings(Section):
    """How a signed token is verified.

    ``jwks_url`` or ``jwks_file`` has the issuer's public keys; a token by a shared secret needs
    neither. ``audience``: one of these has to be in the token.
    """

    jwks_url: str | None = None
    jwks_file: str | None = None
    algorithms: tuple[Algorithm, ...] = Field(("RS256", "ES256"), min_length=1)
    issuer: str | None = None
    audience: tuple[str, ...] = ()
    leeway_s: float = Field(0.0, ge=0, le=600)
    refresh_s: float = Field(300.0, ge=1)
    min_pause_s: float = Field(10.0, ge=1)

    @field_validator("algorithms", mode="before")
    @classmethod
    def _public_keys_only(cls, names: Any) -> Any:
        for name in names if isinstance(names, list | tuple) else ():
            if str(name).upper().startswith("HS") or str(name).lower() == "none":
                raise ValueError(f"{name} has no public key; HS256 is for claim_secret_env")
        return names

    @field_validator("jwks_url")
    @classmethod
    def _is_encrypted(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        local = parts.scheme == "http" and parts.hostname in _LOOPBACK
        if not (parts.hostname and (parts.scheme == "https" or local)):
            raise ValueError("expected https://…; whoever can change the keys can sign tokens")
        return url

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.jwks_url is not None and self.jwks_file is not None:
            raise ValueError("jwks_file: the keys are in jwks_url already")
        return self

    @property
    def has_keys(self) -> bool:
        """Whether it names public keys."""
        return self.jwks_url is not None or self.jwks_file is not None


class EnrichSettings(Section):
    """One rule; the first that fits a request's model and tenant is used (empty lists fit all)."""

    models: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    service: Name
    entity: str
    claim_secret_env: EnvironmentName | None = None
    token: TokenSettings | None = None
    budget_ms: float = Field(5.0, ge=1.0, le=10_000.0)
    required: bool = False
    template: str = Field("support_desk", min_length=1)
    placement: Literal["after_system", "before_system", "last_user"] = "after_system"

    @field_validator("entity")
    @classmethod
    def _names_a_source(cls, entity: str) -> str:
        if not _ENTITY.fullmatch(entity):
            raise ValueError(
                "expected 'header: NAME', 'body: metadata.KEY', 'body: metadata' or "
                "'claim: NAME in HEADER'"
            )
        return entity

    @model_validator(mode="after")
    def _claims_are_verified(self) -> Self:
        public = self.token is not None and self.token.has_keys
        if not self.entity.startswith("claim:"):
            if self.claim_secret_env is not None or self.token is not None:
                name = "token" if self.token is not None else "claim_secret_env"
                raise ValueError(f"{name}: only for an entity from a claim")
        elif self.claim_secret_env is None and not public:
            raise ValueError(
                "claim_secret_env: a claim needs the variable with the HS256 secret, or "
                "token.jwks_url or token.jwks_file with the issuer's public keys"
            )
        elif self.claim_secret_env is not None and public:
            raise ValueError("claim_secret_env: the token's public keys are given already")
        return self


class FeatureCacheSettings(Section):
    """Rows kept in each gateway; 0 turns it off."""

    entries: int = Field(10_000, ge=0)
    ttl_ms: float = Field(1000.0, ge=0)
    negative_ttl_ms: float = Field(1000.0, ge=0)


class StoreTlsSettings(Section):
    """Certificates for a store behind TLS (``rediss://``).

    ``cert_file`` and ``key_file`` are for a server that asks its clients for one. ``verify``
    false: any certificate of the server will do.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True

    @model_validator(mode="after")
    def _a_key_has_a_certificate(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("cert_file: missing beside key_file")
        return self


class FeaturesSettings(Section):
    """Online enrichment. ``redis_url``: another store than the platform's Redis."""

    enabled: bool = False
    redis_url: str | None = None
    redis_username: str | None = None
    redis_password_env: EnvironmentName | None = None
    redis_tls: StoreTlsSettings | None = None
    cache: FeatureCacheSettings = FeatureCacheSettings()
    services: dict[Name, FeatureServiceSettings] = Field(default_factory=dict)
    enrich: tuple[EnrichSettings, ...] = ()

    @field_validator("redis_url")
    @classmethod
    def _is_a_store(cls, url: str | None) -> str | None:
        if url is not None:
            parse_store_url(url)
        return url

    @model_validator(mode="after")
    def _services_are_known(self) -> Self:
        refuse(
            finding.below("enrich", number)
            for number, rule in enumerate(self.enrich)
            for finding in self._of_rule(rule)
        )
        return self

    def _of_rule(self, rule: EnrichSettings) -> Iterator[Finding]:
        service = self.services.get(rule.service)
        if service is None:
            yield Finding(("service",), unknown("service", rule.service, self.services))
        elif not service.holds_tenant and not rule.tenants:
            yield Finding(
                ("tenants",),
                f"the keys of {rule.service!r} do not hold the tenant, so the tenants that may "
                "read its entities have to be named",
            )

    @model_validator(mode="after")
    def _certificates_are_used(self) -> Self:
        url = self.redis_url
        if self.redis_tls is not None and url is not None and not parse_store_url(url).tls:
            raise ValueError("redis_tls: redis_url has no TLS; with it, it begins with rediss")
        return self
