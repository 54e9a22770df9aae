"""The body of ``POST /v1/batches``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from deployments.gateway.bodies.parsing import Body, Name, Whole

_Key = Annotated[str, StringConstraints(max_length=64)]
_Value = Annotated[str, StringConstraints(max_length=512)]


class ExpiresAfter(Body):
    """How long outputs are kept: ``seconds`` from when they are made."""

    place = "output_expires_after"

    anchor: Literal["created_at"]
    seconds: Whole


class BatchBody(Body):
    """A batch over an uploaded file."""

    input_file_id: Name
    endpoint: Name
    completion_window: Name
    metadata: Annotated[dict[_Key, _Value], Field(max_length=16)] | None = None
    output_expires_after: ExpiresAfter | None = None
