"""JSON bodies into models: what is ignored, what is refused, and errors that name the field."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from deployments.gateway.bodies.unknown import Unknown
from deployments.schemas import MAX_BYTES, MAX_DEPTH
from weir.errors import BadRequestError

MAX_TOOLS = 1024
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


def whole(value: Any) -> Any:
    """8 where 8.0 is given."""
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
    # An item at a time: the encoder keeps the interpreter's lock, and every stream waits for it.
    if sum(map(_encoded_bytes, value if isinstance(value, list) else [value])) > most_bytes:
        refuse(f"larger than {most_bytes // 1024} KiB")
    return value


def _encoded_bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def bounded_tools(value: Any) -> Any:
    """The same of a list of tools."""
    if isinstance(value, list) and len(value) > MAX_TOOLS:
        refuse(f"more than {MAX_TOOLS:,} tools")
    return bounded(value, MAX_TOOLS_BYTES, around=3)


ToolT = TypeVar("ToolT")
#: The tools that a request offers.
ToolList = Annotated[list[ToolT], Field(fail_fast=True), BeforeValidator(bounded_tools)]


def check_choice(tools: Collection[str], named: str | None, field: str) -> None:
    """Refuse a choice of a tool that is not on offer. ``tools``: the names of those that are;
    ``field``: where the choice has the name."""
    if not tools:
        refuse("needs tools", "tool_choice")
    if named is not None and named not in tools:
        refuse("no such tool in tools", field)


def _quoted(value: Any) -> Any:
    """8 where 8.0 is given, or "8", which vLLM's servers take too."""
    if isinstance(value, str) and _is_whole(value):
        return int(value)
    return whole(value)


_is_whole = re.compile("-?[0-9]{1,19}").fullmatch
Whole = Annotated[int, Field(strict=True), BeforeValidator(_quoted)]
Count = Annotated[int, Field(ge=0, le=_INT32, strict=True), BeforeValidator(_quoted)]
Positive = Annotated[int, Field(ge=1, le=_INT32, strict=True), BeforeValidator(_quoted)]
TokenId = Annotated[int, Field(ge=0, le=_INT32, strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Json = Annotated[dict[str, Any], BeforeValidator(bounded)]


class Body(BaseModel):
    """A JSON object with known fields. A field that is null is taken as absent.

    ``ignored``: fields that clients send and that change nothing here. ``refused``: known fields
    that would change the answer and are not supported, with the reason; harmless values of them
    are in ``harmless``. ``place``: where such objects stand in a request's body, for the names of
    unknown fields.
    """

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, protected_namespaces=(), populate_by_name=False
    )
    ignored: ClassVar[frozenset[str]] = frozenset()
    refused: ClassVar[Mapping[str, str]] = {}
    harmless: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    place: ClassVar[str] = ""
    known: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        fields = cls.model_fields.items()
        cls.known = frozenset(field.alias or name for name, field in fields)

    @model_validator(mode="before")
    @classmethod
    def _drop_what_changes_nothing(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict):
            return data
        known = cls.known
        if known.issuperset(data):
            return data if None not in data.values() else _without_nulls(data)
        kept = {n: v for n, v in data.items() if v is not None and n in known}
        others = {n: v for n, v in data.items() if n not in known}
        return kept | cls._not_known(others, info.context)

    @classmethod
    def _not_known(cls, fields: dict[str, Any], unknown: Unknown | None) -> dict[str, Any]:
        """Those of the fields that stay: to be refused as unknown, or to be passed on."""
        extra = cls.model_config["extra"]
        kept = {}
        for name, value in fields.items():
            if name in cls.refused:
                if value is not None and value not in cls.harmless.get(name, ()):
                    refuse(cls.refused[name], name)
            elif name in cls.ignored:
                continue
            elif extra == "allow" or (extra == "forbid" and (unknown is None or unknown.refused)):
                kept[name] = value
            elif unknown is not None:
                unknown.add(cls.place, name)
        return kept


def _without_nulls(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}


BodyT = TypeVar("BodyT", bound=BaseModel)


def parse_body(model: type[BodyT], body: bytes, unknown: Unknown | None = None) -> BodyT:
    """Read and check a JSON body. ``unknown`` is told of unknown fields (None: they are refused).

    Raises:
        BadRequestError: the first thing wrong, with ``param`` naming the field.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    if len(body) >= _COUNTED_FROM_BYTES:
        _count_values(body)
    try:
        return model.model_validate_json(body, context=unknown)
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
    problems = error.errors(include_url=False, include_input=False)
    problem = min(problems, key=_relevance)
    if problem["type"] == "json_invalid":
        detail = str(problem["msg"]).removeprefix("Invalid JSON: ")
        if detail.startswith("recursion limit exceeded"):
            return BadRequestError(
                f"The body is nested more than {_PARSED_DEPTH} levels deep.", param=None
            )
        return BadRequestError(f"The body is not valid JSON: {detail}.", param=None)
    param = _param_of(problem)
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = _unrecognized(problems)
    elif problem["type"] == "missing":
        message = "this field is required"
    where = param or "The body"
    return BadRequestError(f"{where}: {message}.", param=param or None)


def _unrecognized(problems: Sequence[Any]) -> str:
    names = [_param_of(p)[:80] for p in problems if p["type"] == "extra_forbidden"]
    others = f" (and {', '.join(names[1:8])})" if len(names) > 1 else ""
    return f"unrecognized request argument{others}"


def _param_of(problem: Any) -> str:
    loc = problem["loc"]
    if problem["type"] == "extra_forbidden":
        return _param(loc[:-1], loc[-1])
    return _param(loc, problem["ctx"].get("field") if problem["type"] == "refused" else None)


def _relevance(problem: Any) -> tuple[int, int]:
    # What is there and wrong says more than what is missing; a wrong value inside a union is
    # reported once per member, and the deepest says most.
    return (0 if problem["type"] != "missing" else 1, -len(problem["loc"]))


# The tags of unions' members are spelled as no field is.
_is_tag = re.compile("<[a-z]+>").fullmatch


def _param(loc: tuple[int | str, ...], field: str | None = None) -> str:
    """The path of a field in the words of clients. ``field``: the name below the place that was
    checked, whatever it is."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]" and not _is_tag(part):
            path += f".{part}" if path else part
    if field:
        path += f".{field}" if path else field
    return path
