"""JSON bodies into models: what is ignored, what is refused, and errors that name the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from deployments.schemas import MAX_BYTES, MAX_DEPTH
from weir.errors import BadRequestError

#: The largest that a list of tools may be, in bytes: those of coding agents have 100 KiB, more with
#: their plug-ins.
MAX_TOOLS_BYTES = 1024 * 1024
#: Names and texts in one body; and objects and lists. Each takes microseconds to check.
MAX_TEXTS = 100_000
#: Values of any kind in one body, token ids among them.
MAX_VALUES = 256 * 1024
#: Smaller bodies cannot have so many that it matters.
_COUNTED_FROM_BYTES = 64 * 1024
#: How deep the JSON parser follows.
_PARSED_DEPTH = 200

_INT32 = 2**31 - 1


def refuse(message: str, field: str = "") -> NoReturn:
    """Refuse a body from inside a validator; ``field`` is the path below the validated object."""
    raise PydanticCustomError("refused", "{reason}", {"reason": message, "field": field})


def _whole(value: Any) -> Any:
    # Some languages write every number with a point.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def bounded(value: Any, most_bytes: int = MAX_BYTES, around: int = 0) -> Any:
    """Refuse JSON that is too large or too deep, before anything reads it. ``around``: levels that
    are around the schemas in it."""
    level, depth = [value] if isinstance(value, dict | list) else [], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH + around:
            refuse(f"nested deeper than {MAX_DEPTH + around}")
        nested: list[Any] = []
        for each in level:
            nested += each.values() if isinstance(each, dict) else each
        level = [each for each in nested if isinstance(each, dict | list)]
    size = len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    if size > most_bytes:
        refuse(f"larger than {most_bytes // 1024} KiB")
    return value


def bounded_tools(value: Any) -> Any:
    """The same of a list of tools."""
    return bounded(value, MAX_TOOLS_BYTES, around=3)


Whole = Annotated[int, Field(strict=True), BeforeValidator(_whole)]
Count = Annotated[int, Field(ge=0, le=_INT32, strict=True), BeforeValidator(_whole)]
Positive = Annotated[int, Field(ge=1, le=_INT32, strict=True), BeforeValidator(_whole)]
TokenId = Annotated[int, Field(ge=0, le=_INT32, strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Json = Annotated[dict[str, Any], BeforeValidator(bounded)]


class Body(BaseModel):
    """A JSON object with known fields. A field that is null is taken as absent.

    ``ignored``: fields that clients send and that change nothing here. ``refused``: known fields
    that would change the answer and are not supported, with the reason; harmless values of them
    are in ``harmless``.
    """

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, protected_namespaces=(), populate_by_name=False
    )
    ignored: ClassVar[frozenset[str]] = frozenset()
    refused: ClassVar[Mapping[str, str]] = {}
    harmless: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_what_changes_nothing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = _field_names(cls)
        kept = {}
        for name, value in data.items():
            if name in known:
                if value is not None:
                    kept[name] = value
            elif name in cls.refused:
                if value is not None and value not in cls.harmless.get(name, ()):
                    refuse(cls.refused[name], name)
            elif name not in cls.ignored:
                kept[name] = value
        return kept


@lru_cache(maxsize=64)
def _field_names(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in model.model_fields.items())


BodyT = TypeVar("BodyT", bound=BaseModel)


def parse_body(model: type[BodyT], body: bytes) -> BodyT:
    """Read and check a JSON body.

    Raises:
        BadRequestError: the first thing wrong, with ``param`` naming the field.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    if len(body) >= _COUNTED_FROM_BYTES:
        _count_values(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _bad_request(error) from None


def _count_values(body: bytes) -> None:
    """Refuse what would take long to check, at a small part of the price: nothing is parsed."""
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    texts = plain.count(b'"') // 2
    if texts <= MAX_TEXTS:
        around = b"".join(plain.split(b'"')[::2])
        nested = around.count(b"[") + around.count(b"{")
        if nested <= MAX_TEXTS and around.count(b",") <= MAX_VALUES:
            return
    raise BadRequestError(
        f"The body has more than {MAX_TEXTS:,} names and texts, {MAX_TEXTS:,} objects and lists, "
        f"or {MAX_VALUES:,} values.",
        param=None,
    )


def check_body(model: type[BodyT], fields: Mapping[str, Any]) -> BodyT:
    """The same of a body that is no JSON any more.

    Raises:
        BadRequestError: as in :func:`parse_body`.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _bad_request(error) from None


def _bad_request(error: ValidationError) -> BadRequestError:
    problem = min(error.errors(include_url=False, include_input=False), key=_relevance)
    if problem["type"] == "json_invalid":
        detail = str(problem["msg"]).removeprefix("Invalid JSON: ")
        if detail.startswith("recursion limit exceeded"):
            return BadRequestError(
                f"The body is nested more than {_PARSED_DEPTH} levels deep.", param=None
            )
        return BadRequestError(f"The body is not valid JSON: {detail}.", param=None)
    field = problem.get("ctx", {}).get("field") if problem["type"] == "refused" else None
    param = _param((*problem["loc"], *([field] if field else ())))
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "unrecognized request argument"
    elif problem["type"] == "missing":
        message = "this field is required"
    where = param or "The body"
    return BadRequestError(f"{where}: {message}.", param=param or None)


def _relevance(problem: Any) -> tuple[int, int]:
    # What is there and wrong says more than what is missing; a wrong value inside a union is
    # reported once per member, and the deepest says most.
    return (0 if problem["type"] != "missing" else 1, -len(problem["loc"]))


_UNION_MEMBERS = frozenset({"str", "int", "list", "dict", "function-after", "constrained-str"})


def _param(loc: tuple[int | str, ...]) -> str:
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part[:1] == "<" or "[" in part or part in _UNION_MEMBERS or part[:1].isupper():
            continue  # the name of a union's member that was tried; clients know no such field
        else:
            path += f".{part}" if path else part
    return path
