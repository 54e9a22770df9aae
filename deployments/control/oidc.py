"""Bearer tokens of an OpenID provider: who it is, with which role, of which tenant.

The keys come from the provider's key set (:mod:`weir.key_sets`), whose address is in the settings
or in its discovery document (OpenID Connect Discovery 1.0, section 4).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt

from weir.errors import AuthenticationError, OverloadedError, PermissionDeniedError
from weir.key_sets import Fetch, KeySet, KeySetSettings, from_file, from_url
from weir.settings.admin import OidcSettings
from weir.tenancy import Role
from weir.tokens import KeysUnknownError, TokenError, TokenRules, TokenVerifier

_DISCOVERY = "/.well-known/openid-configuration"
_MOST_BYTES = 256 * 1024
_MOST_ACTOR_CHARS = 200
#: The strongest first.
ROLES = (Role.ADMIN, Role.TENANT_ADMIN, Role.TENANT_USER, Role.READ_ONLY)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a token says. ``tenant`` is None where it names none."""

    actor: str
    role: Role
    tenant: str | None


class OidcProviders:
    """All providers of the settings. :meth:`start` needs a running loop."""

    def __init__(self, settings: tuple[OidcSettings, ...]) -> None:
        self._providers = {each.issuer: _Provider(each) for each in settings}

    def start(self) -> None:
        """Begin to keep the providers' keys fresh."""
        for provider in self._providers.values():
            provider.keys.start()

    async def close(self) -> None:
        """Stop."""
        for provider in self._providers.values():
            await provider.keys.close()

    def identify(self, token: str, now_s: float) -> Identity:
        """Who a token is of. ``now_s``: seconds since the epoch.

        Raises:
            AuthenticationError: it cannot be believed.
            PermissionDeniedError: it can, and gives no role here.
            OverloadedError: the provider's keys could not be fetched so far.
        """
        provider = self._providers.get(_issuer(token))
        if provider is None:
            raise AuthenticationError("The token is of no known issuer.", param="Authorization")
        return provider.identify(token, now_s)


class _Provider:
    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self.keys = _key_set(settings)
        rules = TokenRules(settings.issuer, settings.audience, settings.leeway_s)
        self._verifier = TokenVerifier(self.keys, rules)

    def identify(self, token: str, now_s: float) -> Identity:
        settings = self._settings
        try:
            claims = self._verifier.claims(token, now_s)
        except KeysUnknownError as error:
            raise OverloadedError(f"The token cannot be verified now: {error}.") from None
        except TokenError as error:
            raise AuthenticationError(f"The token: {error}.", param="Authorization") from None
        if "exp" not in claims:
            raise AuthenticationError("The token never expires.", param="Authorization")
        role = self._role(claims)
        tenants = [
            settings.tenants.get(name, "") if settings.tenants else name
            for name in _texts(claims, settings.tenant_claim)
        ]
        named = [tenant for tenant in tenants if tenant]
        if len(set(named)) > 1:
            raise PermissionDeniedError("The token names several tenants.")
        who = next(_texts(claims, settings.actor_claim), "?")
        actor = f"oidc:{settings.issuer}#{who}"[:_MOST_ACTOR_CHARS]
        return Identity(actor, role, named[0] if named else None)

    def _role(self, claims: Mapping[str, Any]) -> Role:
        settings = self._settings
        given = set(_texts(claims, settings.role_claim))
        meant = {settings.roles[name] for name in given if name in settings.roles}
        names: set[str] = set(meant) if settings.roles else given
        role = next((role for role in ROLES if role.value in names), None)
        if role is None:
            raise PermissionDeniedError("The token gives no role here.")
        return role


def _texts(claims: Mapping[str, Any], path: str) -> Iterator[str]:
    """The texts at a path of claims: one, those of a list, or none."""
    found: Any = claims.get(path)  # a claim's own name may have dots, as URLs do
    if found is None:
        found = claims
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
    for each in found if isinstance(found, list) else [found]:
        if isinstance(each, str) and each:
            yield each


def _issuer(token: str) -> str:
    """Whose keys are to verify it. Nothing is believed before they have."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        raise AuthenticationError("The token is no JWT.", param="Authorization") from None
    return str(claims.get("iss", ""))


def _key_set(settings: OidcSettings) -> KeySet:
    how = KeySetSettings(settings.algorithms, settings.refresh_s, settings.min_pause_s)
    if settings.jwks_file is not None:
        return from_file(Path(settings.jwks_file), how)
    if settings.jwks_url is not None:
        return from_url(settings.jwks_url, how)
    return KeySet(_discovering(settings.issuer, how.timeout_s), settings.issuer, how)


def _discovering(issuer: str, timeout_s: float) -> Fetch:
    """Fetches the discovery document, then the keys that it names."""

    def fetch() -> bytes:
        with httpx.Client(timeout=timeout_s) as client:
            found = json.loads(_get(client, issuer.rstrip("/") + _DISCOVERY))
            if not isinstance(found, dict) or found.get("issuer") != issuer:
                raise ValueError("the discovery document is of another issuer")
            address = str(found.get("jwks_uri", ""))
            if not address.startswith("https://") and not issuer.startswith("http://"):
                raise ValueError("jwks_uri is not https://…")
            return _get(client, address)

    return fetch


def _get(client: httpx.Client, url: str) -> bytes:
    with client.stream("GET", url, headers={"accept": "application/json"}) as response:
        if response.status_code != httpx.codes.OK:
            raise ValueError(f"status {response.status_code}")
        data = b""
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) > _MOST_BYTES:
                raise ValueError(f"more than {_MOST_BYTES} bytes")
        return data
