"""Tenants by the digests of their keys."""

from __future__ import annotations

from collections.abc import Iterable

from weir.errors import AuthenticationError
from weir.settings import TenantSettings
from weir.tenancy.secret_keys import hash_key
from weir.tenancy.tenant import Tenant


class KeyRing:
    """Digest to tenant. Built from settings; replaced whole on reload."""

    def __init__(self, tenants: Iterable[TenantSettings]) -> None:
        self._tenants: dict[str, Tenant] = {}
        for settings in tenants:
            tenant = Tenant(
                settings.id,
                frozenset(settings.models),
                settings.classes,
                settings.prefix_group,
                fallback=settings.fallback,
            )
            for digest in settings.key_sha256:
                self._tenants[digest] = tenant

    def authenticate(self, authorization: str | None, api_key: str | None = None) -> Tenant:
        """The tenant of an ``Authorization`` header's value, or, where there is none, of an
        ``x-api-key`` header's, which is the key itself.

        Raises:
            AuthenticationError: neither header, not a bearer token, or a key nobody holds.
        """
        if not authorization:
            if not api_key:
                raise AuthenticationError(
                    "No API key was given. Send it as 'Authorization: Bearer weir_...', or as "
                    "'x-api-key: weir_...'.",
                    param="Authorization",
                )
            return self._holder(api_key, "x-api-key")
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise AuthenticationError(
                "The Authorization header must be 'Bearer <key>'.", param="Authorization"
            )
        return self._holder(key, "Authorization")

    def _holder(self, key: str, header: str) -> Tenant:
        tenant = self._tenants.get(hash_key(key.strip()))
        if tenant is None:
            raise AuthenticationError("The API key is not valid.", param=header)
        return tenant
