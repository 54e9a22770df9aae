"""Versions of what can be changed, as HTTP's entity tags (RFC 9110, section 13)."""

from __future__ import annotations

import re

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from weir.errors import PreconditionRequiredError, VersionMismatchError

_TAG = re.compile(r'"([0-9]{1,9})"')


def tag_of(version: int) -> str:
    """The entity tag of a version."""
    return f'"{version}"'


def expected_version(request: Request) -> int | None:
    """Which version of something a change is meant for; None: whichever it has.

    Raises:
        PreconditionRequiredError: the request does not say it.
        VersionMismatchError: what it says is no version's tag.
    """
    given = request.headers.get("if-match", "").strip()
    if not given:
        raise PreconditionRequiredError(
            "Send the ETag of what you have read as If-Match, so that no other change is lost.",
            param="If-Match",
        )
    if given == "*":
        return None
    tag = _TAG.fullmatch(given)
    if tag is None:
        raise VersionMismatchError("If-Match: not an ETag of this API.", param="If-Match")
    return int(tag[1])


def tagged(request: Request, body: BaseModel, version: int) -> Response:
    """The answer to a GET: the body with its tag, or 304 for whoever has it already."""
    tag = tag_of(version)
    headers = {"etag": tag, "cache-control": "no-cache"}
    if tag in (each.strip() for each in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return JSONResponse(body.model_dump(mode="json"), headers=headers)
