"""Who asks for a page: a tenant, whoever watches the platform, or a stranger."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from fastapi import Request

from deployments.gateway import http
from weir.errors import AuthenticationError, PermissionDeniedError
from weir.tenancy import Caller, LiveDirectory, Tenant, hash_key


def caller_of(directory: LiveDirectory, request: Request) -> Caller:
    """The tenant and key with which the request asks.

    Raises:
        AuthenticationError: it carries no key, or one that cannot be used.
        PermissionDeniedError: the tenant is switched off.
    """
    scope = request.scope
    given = http.header(scope, b"authorization"), http.header(scope, b"x-api-key")
    return directory.authenticate(*given)


@dataclass(frozen=True, slots=True)
class EndpointCallers:
    """Who asks for what is kept of an endpoint's (files, batches, responses).

    Its methods raise what :func:`caller_of` does, and PermissionDeniedError where the key is not
    for the endpoint, or only for reading."""

    directory: LiveDirectory

    def reader(self, request: Request, endpoint: str) -> Tenant:
        """Whose it is that somebody wants to see."""
        caller = caller_of(self.directory, request)
        caller.require_endpoint(endpoint, asks=False)
        return caller.tenant

    def writer(self, request: Request, endpoint: str) -> Caller:
        """Who makes, changes or deletes something."""
        caller = caller_of(self.directory, request)
        caller.require_endpoint(endpoint)
        return caller


@dataclass(frozen=True, slots=True)
class Callers:
    """``internal_token`` is the platform's own; ``watchers`` are the digests of the keys in
    ``server.metrics.key_sha256``."""

    directory: LiveDirectory
    internal_token: str
    watchers: frozenset[str]

    def require_platform(self, request: Request) -> None:
        """Raises:
        AuthenticationError: it is not the platform itself that asks.
        """
        if not self._is_platform(_bearer(request)):
            raise AuthenticationError("The platform's own token is needed here.")

    def require_watcher(self, request: Request) -> None:
        """Raises:
        AuthenticationError: it has no key of ``server.metrics``.
        """
        if not self.watches(request):
            raise AuthenticationError(
                "Metrics are for a key of server.metrics.key_sha256, or on server.metrics.port."
            )

    def watches(self, request: Request) -> bool:
        """Whether whoever asks may see the whole platform."""
        given = _bearer(request)
        return self._is_platform(given) or (bool(given) and hash_key(given) in self.watchers)

    def may_see(self, request: Request, model: str) -> bool:
        """Whether whoever asks may know that there is such a model."""
        if self.watches(request):
            return True
        try:
            return caller_of(self.directory, request).sees_model(model)
        except (AuthenticationError, PermissionDeniedError):
            return False

    def _is_platform(self, given: str) -> bool:
        token = self.internal_token
        return bool(token) and hmac.compare_digest(given.encode(), token.encode())


def _bearer(request: Request) -> str:
    scheme, _, key = (http.header(request.scope, b"authorization") or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
