"""What the OpenAPI description says of every operation: errors, headers, who may do it."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from deployments.control.bodies import ErrorBody

IF_MATCH: dict[str, Any] = {
    "in": "header",
    "name": "If-Match",
    "required": False,
    "description": "The `ETag` of what is to be changed, or `*`. Without it: 428; of another "
    "version: 412.",
    "schema": {"type": "string"},
    "example": '"3"',
}
IDEMPOTENCY_KEY: dict[str, Any] = {
    "in": "header",
    "name": "Idempotency-Key",
    "required": False,
    "description": "Any text of your own. The same request with it, within a day, changes nothing "
    "again and gets the first answer, with `idempotent-replayed: true`.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "example": "create-acme-6d2b7f5e",
}
_ERRORS = {
    400: "The request is wrong; `param` names the field.",
    401: "No key, or none that is valid now.",
    403: "The key is good, and its role or tenant may not do this.",
    404: "There is no such thing (for this tenant).",
    503: "The database, Redis or the token's issuer does not answer now; see Retry-After.",
}
_CHANGE_ERRORS = {
    408: "The body did not arrive in time.",
    409: "What is there already stands against it.",
    413: "The body is too large.",
    422: "The Idempotency-Key was used for another request.",
}
_VERSION_ERRORS = {
    412: "It has been changed since the version that If-Match names.",
    428: "If-Match is missing.",
}
_ABOUT = """\
Tenants, keys, quotas, budgets, usage and cost.

`/admin/v1` is for the operator (role `admin`), `/v1/tenant` for a tenant's own keys. Each operation
says in `x-weir-role` which role it needs: `admin`, `tenant-admin`, `tenant-user`, `read-only`, each
of which includes those after it. Keys and bearer tokens of an OpenID provider travel as
`Authorization: Bearer …`.
"""


def described_responses(method: str, versioned: bool) -> dict[int | str, dict[str, Any]]:
    """The errors that an operation may answer with."""
    errors = dict(_ERRORS)
    if method != "GET":
        errors |= _CHANGE_ERRORS
    if versioned:
        errors |= _VERSION_ERRORS
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": about} for status, about in errors.items()
    }
    if method == "GET":
        found[304] = {"description": "You have it already (If-None-Match).", "content": {}}
    return found


def describe(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1 of the whole application (built once, then kept on it)."""
    if app.openapi_schema:
        return app.openapi_schema
    spec = get_openapi(
        title=app.title,
        version=app.version,
        routes=app.routes,
        description=_ABOUT,
        separate_input_output_schemas=False,  # one name for one thing
    )
    components = spec["components"]
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    for methods in spec["paths"].values():
        for operation in methods.values():
            operation["security"] = [{"bearer": []}, {"x-api-key": []}]
            # FastAPI's own answer to a wrong request is not this application's.
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    for schema in components["schemas"].values():
        _simplify_defaults(schema)
    app.openapi_schema = spec
    return spec


def _simplify_defaults(schema: dict[str, Any]) -> None:
    """Generators of clients stumble over defaults that are lists of objects: they are words."""
    for described in schema.get("properties", {}).values():
        default = described.get("default")
        if isinstance(default, list) and any(isinstance(each, dict) for each in default):
            described["description"] = f"Default: {json.dumps(described.pop('default'))}"
