"""The OpenAPI description: what ``/docs`` shows and the API fuzzer reads.

The request path is not FastAPI's, so its operations are described here, from the very
models that check the bodies.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from deployments.gateway.dialects import DIALECTS, Dialect

_ERRORS = {
    "400": "The request is wrong; `param` names the field.",
    "401": "No API key, or not a valid one.",
    "404": "No such model.",
    "413": "The body is too large.",
    "415": "The body is not JSON, or compressed in an unknown way.",
    "429": "A limit of the tenant's own; see Retry-After.",
    "503": "No room now; see Retry-After.",
}
_ANTHROPIC_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
_OPENAI_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def describe_api(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1 of the whole gateway (built once, then kept on the app)."""
    if app.openapi_schema:
        return app.openapi_schema
    spec = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = spec.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    bodies = [(dialect.body, "validation") for dialect in DIALECTS]
    _, definitions = models_json_schema(bodies, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    schemas |= definitions["$defs"]
    schemas |= {"OpenaiError": _OPENAI_ERROR, "AnthropicError": _ANTHROPIC_ERROR}
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer"},
        "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    for dialect in DIALECTS:
        spec["paths"][dialect.path] = {"post": _operation(dialect)}
    for path, methods in spec["paths"].items():
        if path.startswith("/v1/") or path in DIALECTS.paths:
            for operation in methods.values():
                operation["security"] = [{"key": []}, {"x-api-key": []}]
                family = operation["tags"][0]
                operation["responses"] |= {c: _error(c, family) for c in ("401", "404")}
    app.openapi_schema = spec
    return spec


def _operation(dialect: Dialect) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{dialect.body.__name__}"}
    answer: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if "stream" in dialect.body.model_fields:
        answer["text/event-stream"] = {}
    responses = {"200": {"description": "The answer.", "content": answer}}
    return {
        "tags": [dialect.family],
        "summary": dialect.summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}},
        "responses": responses | {code: _error(code, dialect.family) for code in _ERRORS},
    }


def _error(code: str, family: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{family.capitalize()}Error"}
    return {"description": _ERRORS[code], "content": {"application/json": {"schema": schema}}}
