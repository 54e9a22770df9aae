"""All routes of the application, and a request that each of them would answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from deployments.control.routing import GuardedRoute
from weir.tenancy import Role


@dataclass(frozen=True)
class Operation:
    """``needs``: the weakest role that may do it."""

    method: str
    path: str
    needs: Role
    route: GuardedRoute

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def operators(self) -> bool:
        return self.path.startswith("/admin/")

    @property
    def names_something(self) -> bool:
        """Whether the path has the id of something that belongs to a tenant."""
        return "{" in self.path.replace("{tenant}", "").replace("{service}", "")

    def filled(self, **values: str) -> str:
        """The path with values for its parameters."""
        return re.sub(r"\{(\w+)(?::path)?\}", lambda found: values[found[1]], self.path)


def operations(app: FastAPI) -> Iterator[Operation]:
    """Every guarded operation."""
    for route in app.routes:
        if isinstance(route, APIRoute):
            assert isinstance(route, GuardedRoute), f"{route.path} is not guarded"
            for method in sorted(route.methods):
                yield Operation(method, route.path, route.needs, route)


def example_body(app: FastAPI, operation: Operation) -> Any:
    """A body from the description's own examples; None where there is none."""
    spec = app.openapi()
    path = re.sub(r":path\}", "}", operation.path)
    described = spec["paths"][path][operation.method.lower()]
    content = described.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    schema = content["schema"]
    if "$ref" in schema:
        schema = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema["examples"][0]
