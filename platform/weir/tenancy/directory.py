"""All tenants and keys at one moment, and the holder that gateways ask."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from weir.errors import AuthenticationError, PermissionDeniedError
from weir.rollouts.course import Rollout
from weir.settings.tenants import TenantSettings
from weir.tenancy.fields import tenant_of_fields
from weir.tenancy.secret_keys import KEY_PREFIX, hash_key, key_id_of
from weir.tenancy.tenant import Caller, Key, Tenant

_NO_KEY = (
    f"No API key was given. Send it as 'Authorization: Bearer {KEY_PREFIX}...', or as "
    f"'x-api-key: {KEY_PREFIX}...'."
)


@dataclass(frozen=True)
class Directory:
    """Frozen; a change makes another one. ``callers``: the tenant and key of each key, by the
    key's id and, for keys that are shown without an id, by its digest. ``revision``: that of the
    database (-1: it was never read). ``conflicts``: what was left out, in words. ``rollouts``: the
    candidates that are tried now, by the model in whose place."""

    tenants: Mapping[str, Tenant]
    callers: Mapping[str, Caller]
    revision: int = -1
    conflicts: tuple[str, ...] = ()
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        listed: Iterable[TenantSettings],
        stored: Iterable[Tenant] = (),
        keys: Iterable[Key] = (),
        revision: int = -1,
        rollouts: Iterable[Rollout] = (),
    ) -> Directory:
        """``listed``: the tenants of the settings, which hold where both know an id or a key."""
        tenants: dict[str, Tenant] = {}
        callers: dict[str, Caller] = {}
        conflicts: list[str] = []
        for settings in listed:
            tenant = tenants[settings.id] = tenant_of_fields(settings.id, settings)
            for digest in settings.key_sha256:
                key = Key(f"sha256-{digest[:12]}", settings.id, digest)
                callers[digest] = callers[key.id] = Caller(tenant, key)
        own = set(tenants)
        for tenant in stored:
            if tenant.id in own:
                conflicts.append(f"The tenant {tenant.id!r} of the database is in the settings.")
            else:
                tenants[tenant.id] = tenant
        for key in keys:
            if key.tenant in own or key.tenant not in tenants:
                continue
            if key.digest in callers:
                conflicts.append(f"The key {key.id!r} of the database is in the settings.")
                continue
            callers[key.id] = Caller(tenants[key.tenant], key)
        tried = {each.model: each for each in rollouts if each.share or each.mirror}
        return cls(
            MappingProxyType(tenants),
            MappingProxyType(callers),
            revision,
            tuple(conflicts),
            MappingProxyType(tried),
        )

    def caller(self, key_id: str) -> Caller | None:
        """The tenant and key of a key's id; whether it may be used now is not looked at."""
        return self.callers.get(key_id)

    def holder(self, secret: str) -> Caller | None:
        """Whose key it is. A key with an id is compared in constant time; one without is found by
        its digest, which says nothing about the key to whoever measures the look-up."""
        digest = hash_key(secret)
        key_id = key_id_of(secret)
        if key_id is not None:
            found = self.callers.get(key_id)
            if found is not None and hmac.compare_digest(found.key.digest, digest):
                return found
        return self.callers.get(digest)


class LiveDirectory:
    """The directory that holds now. Whoever watches the tenants replaces it whole, between two
    requests. ``wall_clock``: seconds since the epoch, for keys that expire."""

    def __init__(self, directory: Directory, wall_clock: Callable[[], float]) -> None:
        self.directory = directory
        self._wall_clock = wall_clock
        self._uses: dict[str, float] = {}

    def authenticate(self, authorization: str | None, api_key: str | None = None) -> Caller:
        """Who asks, by an ``Authorization`` header's value or, where there is none, by that of an
        ``x-api-key`` header, which is the key itself.

        Raises:
            AuthenticationError: neither header, not a bearer token, a key nobody holds, or one that
                has expired or is revoked.
            PermissionDeniedError: the tenant is switched off.
        """
        if authorization:
            scheme, _, secret = authorization.partition(" ")
            secret = secret.strip()
            if scheme.lower() != "bearer" or not secret:
                raise AuthenticationError(
                    "The Authorization header must be 'Bearer <key>'.", param="Authorization"
                )
            return self._admit(secret, "Authorization")
        if not api_key:
            raise AuthenticationError(_NO_KEY, param="Authorization")
        return self._admit(api_key.strip(), "x-api-key")

    def weight(self, tenant_id: str) -> float | None:
        """The tenant's own fair share; None where it has none."""
        tenant = self.directory.tenants.get(tenant_id)
        return None if tenant is None else tenant.weight

    def take_uses(self) -> dict[str, float]:
        """When each key was used last, in seconds since the epoch, of those used since the last
        call. For another thread than the one that authenticates: a use in between may be lost."""
        uses, self._uses = self._uses, {}
        return dict(uses)

    def _admit(self, secret: str, header: str) -> Caller:
        caller = self.directory.holder(secret)
        if caller is None:
            raise AuthenticationError("The API key is not valid.", param=header)
        now_s = self._wall_clock()
        if not caller.key.usable(now_s):
            raise AuthenticationError("The API key has expired or is revoked.", param=header)
        if not caller.tenant.enabled:
            raise PermissionDeniedError("The tenant is switched off.")
        self._uses[caller.key.id] = now_s
        return caller
