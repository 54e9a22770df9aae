"""Routes that nobody passes without a role.

A route says which role it needs where it is declared, and cannot be declared without. Whoever asks
is known, and found strong enough, before anything else of the request is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.routing import APIRoute

from deployments.control.describing import IDEMPOTENCY_KEY, IF_MATCH, described_responses
from deployments.control.principals import Doorkeeper, Principal
from weir.errors import PermissionDeniedError
from weir.tenancy import Role

NEEDS = "x-weir-role"
"""In the OpenAPI description of an operation: the weakest role that may do it."""
_Endpoint = Callable[..., Any]
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]
_TENANT = Path(
    description="The tenant's id.", examples=["acme"], pattern=r"^[a-z0-9][a-z0-9-]{0,62}$"
)


@dataclass(frozen=True, slots=True)
class Face:
    """One of the API's two faces. The operator's names a tenant in the path, a tenant's own is
    about the tenant of whoever asks. ``subject`` gives an endpoint the tenant that it is about.

    ``reads``, ``manages``: the roles that may look, and that may change keys and data.
    """

    prefix: str
    name: str
    reads: Role
    manages: Role
    subject: Callable[..., str]


def principal_of(request: Request) -> Principal:
    """Who asks; known in every endpoint of a :class:`GuardedRoute`."""
    principal = request.state.principal
    assert isinstance(principal, Principal)
    return principal


def _named(tenant: str = _TENANT) -> str:
    return tenant


def _own(request: Request) -> str:
    return principal_of(request).own_tenant


OPERATOR = Face("/admin/v1/tenants/{tenant}", "admin", Role.ADMIN, Role.ADMIN, _named)
TENANT = Face("/v1/tenant", "tenant", Role.READ_ONLY, Role.TENANT_ADMIN, _own)


class GuardedRoute(APIRoute):
    """Raises, when it is declared:
    ValueError: it does not say which role it needs.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        extra: Mapping[str, Any] = kwargs.get("openapi_extra") or {}
        if NEEDS not in extra:
            raise ValueError(f"a route says which role it needs ({NEEDS})")
        self.needs = Role(extra[NEEDS])
        super().__init__(*args, **kwargs)

    def get_route_handler(self) -> _Handler:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            doorkeeper: Doorkeeper = request.app.state.doorkeeper
            headers = request.headers
            principal = await doorkeeper.identify(
                headers.get("authorization"), headers.get("x-api-key")
            )
            self._require(principal)
            request.state.principal = principal
            return await handle(request)

        return guarded

    def _require(self, principal: Principal) -> None:
        principal.require(self.needs)
        if not self.path.startswith(OPERATOR.prefix.partition("/tenants")[0]):
            _ = principal.own_tenant
        elif principal.role is not Role.ADMIN:
            raise PermissionDeniedError("This is for the operator.")


class Routes:
    """Declares guarded routes of one tag. ``versioned``: a change of something that has an ETag."""

    def __init__(self, tag: str) -> None:
        self.router = APIRouter(route_class=GuardedRoute)
        self._tag = tag

    def get(self, path: str, needs: Role, **described: Any) -> Callable[[_Endpoint], _Endpoint]:
        """A page that changes nothing."""
        return self._declare("GET", path, needs, described)

    def post(self, path: str, needs: Role, **described: Any) -> Callable[[_Endpoint], _Endpoint]:
        """Something is made, or done."""
        return self._declare("POST", path, needs, described)

    def put(self, path: str, needs: Role, **described: Any) -> Callable[[_Endpoint], _Endpoint]:
        """Something is replaced whole."""
        return self._declare("PUT", path, needs, described)

    def patch(self, path: str, needs: Role, **described: Any) -> Callable[[_Endpoint], _Endpoint]:
        """Some fields of something are changed."""
        return self._declare("PATCH", path, needs, described)

    def delete(self, path: str, needs: Role, **described: Any) -> Callable[[_Endpoint], _Endpoint]:
        """Something is removed."""
        return self._declare("DELETE", path, needs, described)

    def _declare(
        self, method: str, path: str, needs: Role, described: dict[str, Any]
    ) -> Callable[[_Endpoint], _Endpoint]:
        versioned = described.pop("versioned", False)
        responses = described_responses(method, versioned) | described.pop("responses", {})
        parameters = [IF_MATCH] if versioned else []
        if method != "GET":
            parameters.append(IDEMPOTENCY_KEY)
        extra: dict[str, Any] = {NEEDS: needs.value}
        if parameters:
            extra["parameters"] = parameters

        def declare(endpoint: _Endpoint) -> _Endpoint:
            self.router.add_api_route(
                path,
                endpoint,
                methods=[method],
                tags=[self._tag],
                openapi_extra=extra,
                responses=responses,
                **described,
            )
            return endpoint

        return declare
