"""The admin API: where it listens, who may use it beside tenants' keys."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from weir.settings.features import TokenSettings
from weir.settings.section import Section
from weir.settings.server import KeyDigest, Port

RoleName = Literal["admin", "tenant-admin", "tenant-user", "read-only"]
ClaimPath = Annotated[str, Field(pattern=r"^[^\s.]+(\.[^\s.]+)*$")]
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class OidcSettings(TokenSettings):
    """An OpenID provider whose bearer tokens open the admin API.

    The keys are those of ``jwks_url`` or ``jwks_file``; without either, those that the issuer's
    discovery document names. ``role_claim`` and ``tenant_claim`` are paths into the token's claims
    (``realm_access.roles``); a claim may be a text or a list of texts. ``roles`` and ``tenants``
    say what a claim's value means here; where they are empty, the value is the role's or the
    tenant's own name. Of several roles the strongest counts. ``actor_claim``: who the audit log
    says it was.
    """

    issuer: str = Field(min_length=1)
    audience: tuple[str, ...] = Field(min_length=1)
    leeway_s: float = Field(30.0, ge=0, le=600)
    actor_claim: ClaimPath = "sub"
    role_claim: ClaimPath = "weir_role"
    roles: dict[str, RoleName] = Field(default_factory=dict)
    tenant_claim: ClaimPath = "weir_tenant"
    tenants: dict[str, str] = Field(default_factory=dict)

    @field_validator("issuer")
    @classmethod
    def _can_be_asked(cls, issuer: str) -> str:
        parts = urlsplit(issuer)
        local = parts.scheme == "http" and parts.hostname in _LOOPBACK
        if not (parts.hostname and (parts.scheme == "https" or local)):
            raise ValueError("expected https://…; an issuer is a URL")
        return issuer


class AdminSettings(Section):
    """The admin API.

    ``port`` None: on the clients' port, below ``/admin/v1`` and ``/v1/tenant``; else only on
    ``host:port``. ``key_sha256``: digests of the operator's keys, which belong to no tenant and
    have the role admin.
    """

    host: str = "127.0.0.1"
    port: Port | None = None
    key_sha256: tuple[KeyDigest, ...] = ()
    oidc: tuple[OidcSettings, ...] = ()
