"""Who asks: the operator, a tenant's key, or a bearer token of an OpenID provider."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from deployments.control.oidc import ROLES, OidcProviders
from weir.errors import AuthenticationError, NotFoundError, PermissionDeniedError
from weir.tenancy import KEY_PREFIX, Caller, Role, hash_key

FindCaller = Callable[[str], Awaitable[Caller]]
"""The tenant and key of an API key. Raises AuthenticationError, or PermissionDeniedError."""
KnowsTenant = Callable[[str], Awaitable[bool]]
"""Whether there is such a tenant, and it is enabled."""


@dataclass(frozen=True, slots=True)
class Principal:
    """``actor`` is what the audit log calls it. ``tenant`` is None for whoever belongs to none."""

    actor: str
    role: Role
    tenant: str | None = None
    key_id: str | None = None

    def at_least(self, role: Role) -> bool:
        """Whether it may do what that role may."""
        return ROLES.index(self.role) <= ROLES.index(role)

    def require(self, role: Role) -> None:
        """Raises:
        PermissionDeniedError: it is weaker.
        """
        if not self.at_least(role):
            raise PermissionDeniedError(f"This needs the role {role}; yours is {self.role}.")

    @property
    def own_tenant(self) -> str:
        """Raises:
        PermissionDeniedError: it belongs to none.
        """
        if self.tenant is None:
            raise PermissionDeniedError(
                "This key belongs to no tenant; ask below /admin/v1/tenants/{tenant}."
            )
        return self.tenant


class Doorkeeper:
    """``operators``: digests of the operator's own keys. ``now_s``: seconds since the epoch."""

    def __init__(
        self,
        operators: Sequence[str],
        find_caller: FindCaller,
        providers: OidcProviders,
        knows_tenant: KnowsTenant,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._operators = tuple(operators)
        self._find_caller = find_caller
        self._providers = providers
        self._knows_tenant = knows_tenant
        self._now_s = now_s

    async def identify(self, authorization: str | None, api_key: str | None) -> Principal:
        """Who sends these headers (``Authorization``, ``x-api-key``).

        Raises:
            AuthenticationError: nobody who is known.
            PermissionDeniedError: somebody who is known, and may do nothing here.
            OverloadedError: it cannot be found out now.
        """
        given = _credential(authorization, api_key)
        operator = self._operator(given)
        if operator is not None:
            return operator
        if given.count(".") == 2 and not given.startswith(KEY_PREFIX):
            return await self._of_token(given)
        caller = await self._find_caller(given)
        key = caller.key
        return Principal(f"key:{key.id}", key.role, caller.tenant.id, key.id)

    def _operator(self, given: str) -> Principal | None:
        digest, found = hash_key(given), None
        for each in self._operators:
            if hmac.compare_digest(digest, each):
                found = Principal(f"operator:{each[:12]}", Role.ADMIN)
        return found

    async def _of_token(self, token: str) -> Principal:
        identity = self._providers.identify(token, self._now_s())
        tenant = identity.tenant
        if tenant is None and identity.role is not Role.ADMIN:
            raise PermissionDeniedError("The token names no tenant.")
        if tenant is not None and not await self._knows_tenant(tenant):
            raise NotFoundError("There is no such tenant.")
        return Principal(identity.actor, identity.role, tenant)


def _credential(authorization: str | None, api_key: str | None) -> str:
    """Raises: AuthenticationError: there is none."""
    if not authorization:
        if not api_key or not api_key.strip():
            raise AuthenticationError(
                "No key was given. Send it as 'Authorization: Bearer …'.", param="Authorization"
            )
        return api_key.strip()
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise AuthenticationError(
            "The Authorization header must be 'Bearer …'.", param="Authorization"
        )
    return given.strip()
