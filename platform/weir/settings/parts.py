"""Names for parts: one file, one decorator with the config name, one frozen params dataclass.

A part is a policy, a scorer, a rule or a limit that the settings choose by name. The rooms register
theirs; what checks the settings or describes them is handed the registries (:class:`Parts`), so
that the kernel imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError, ValidationInfo

from weir.errors import ConfigError
from weir.settings.section import FINDING, Finding, Place, nearest

T = TypeVar("T")
_F = TypeVar("_F", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Parts of one kind. ``what`` ("routing policy") and ``path`` ("routing.policy", where its
    name stands in the settings) are for messages.

    What a parameter may be is said by its annotation in the params dataclass
    (``Annotated[float, Field(gt=0)]``) and, where several have to fit each other, by a
    ``ValueError`` of ``__post_init__``.
    """

    def __init__(self, what: str, path: str) -> None:
        self.what = what
        self._path = path
        self._known: dict[str, tuple[Callable[..., T], type]] = {}
        self._adapters: dict[str, TypeAdapter[Any]] = {}

    def register(self, name: str, params: type) -> Callable[[_F], _F]:
        """Class decorator: make a part known by its config name. A name is taken only once."""

        def add(factory: _F) -> _F:
            if name in self._known:
                raise ValueError(f"{self.what} {name!r} is registered twice")
            if not is_dataclass(params):
                raise TypeError(f"params of {self.what} {name!r} must be a dataclass")
            self._known[name] = (factory, params)
            return factory

        return add

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted."""
        return tuple(sorted(self._known))

    def params(self, name: str) -> type:
        """The params dataclass of a registered part."""
        return self._known[name][1]

    def adapter(self, name: str) -> TypeAdapter[Any]:
        """pydantic's reading of a registered part's parameters, made when it is first needed."""
        if name not in self._adapters:
            self._adapters[name] = TypeAdapter(self.params(name))
        return self._adapters[name]

    def unknown(self, name: str) -> str | None:
        """What to say of a name that nothing is registered by; None: something is."""
        if name in self._known:
            return None
        proposed = nearest(name, self._known)
        known = f"{' K' if proposed else '; k'}nown: {', '.join(self.names())}"
        return f"unknown {self.what} {name!r}{proposed}{known}"

    def findings(self, name: str, given: Mapping[str, Any]) -> tuple[Finding, ...]:
        """What is wrong with the parameters of a registered part, each at its key."""
        expected = sorted(field.name for field in fields(self.params(name)))
        takes = f"{name} takes {', '.join(expected) or 'no parameters'}"
        found = [
            Finding((str(key),), f"unknown key{nearest(str(key), expected) or ';'} {takes}")
            for key in given
            if key not in expected
        ]
        try:
            self.adapter(name).validate_python({k: v for k, v in given.items() if k in expected})
        except ValidationError as error:
            found += (_finding(each) for each in error.errors())
        return tuple(found)

    def build(self, name: str, params: Mapping[str, Any] | None = None) -> T:
        """Build a part; an unknown name or parameter is a :class:`ConfigError`."""
        if (message := self.unknown(name)) is not None:
            raise ConfigError(f"{self._path}: {message}")
        given = dict(params or {})
        if found := self.findings(name, given):
            told = (f"{'.'.join(map(str, (name, *each.place)))}: {each.message}" for each in found)
            raise ConfigError(f"{self._path} {'; '.join(told)}")
        return self._known[name][0](self.adapter(name).validate_python(given))


@dataclass(frozen=True, slots=True)
class Parts:
    """What the settings may choose by name: ``models[].routing.policy``,
    ``models[].routing.disaggregation.rule``, ``admission.limits``, ``autoscaling.policy``."""

    policies: Registry[Any]
    rules: Registry[Any]
    limits: Registry[Any]
    autoscaling: Registry[Any]


def chosen(
    registry: Registry[Any], name: str, params: Mapping[str, Any], place: str
) -> Iterator[Finding]:
    """What is wrong with a section that names one part at ``place`` and has its ``params``."""
    if (message := registry.unknown(name)) is not None:
        yield Finding((place,), message, spoils=1)
        return
    for finding in registry.findings(name, params):
        yield finding.below("params")


def named(
    registry: Registry[Any], params: Mapping[str, Mapping[str, Any] | None]
) -> Iterator[Finding]:
    """What is wrong with a mapping from parts to their parameters (None: the part is left out)."""
    for name, given in params.items():
        if (message := registry.unknown(name)) is not None:
            yield Finding((name,), message)
            continue
        for finding in registry.findings(name, given or {}):
            yield finding.below(name)


def parts_of(info: ValidationInfo) -> Parts | None:
    """The registries that a validator is given; None: parts are not checked here."""
    return getattr(info.context, "parts", None)


def _finding(error: Any) -> Finding:
    place: Place = error["loc"]
    if error["type"] == FINDING:
        return Finding(place, str(error["msg"]))
    message = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return Finding(place, f"{message[:1].lower()}{message[1:]}{shown}")
