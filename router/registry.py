"""Names for parts: one file, one decorator with the config name, one frozen params dataclass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar

from weir.errors import ConfigError

T = TypeVar("T")
_F = TypeVar("_F", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Parts of one kind. ``what`` ("routing policy") and ``path`` ("routing.policy", where its
    name stands in the settings) are for messages."""

    def __init__(self, what: str, path: str) -> None:
        self._what = what
        self._path = path
        self._known: dict[str, tuple[Callable[..., T], type]] = {}

    def register(self, name: str, params: type) -> Callable[[_F], _F]:
        """Class decorator: make a part known by its config name. A name is taken only once."""

        def add(factory: _F) -> _F:
            if name in self._known:
                raise ValueError(f"{self._what} {name!r} is registered twice")
            if not is_dataclass(params):
                raise TypeError(f"params of {self._what} {name!r} must be a dataclass")
            self._known[name] = (factory, params)
            return factory

        return add

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted."""
        return tuple(sorted(self._known))

    def build(self, name: str, params: Mapping[str, Any] | None = None) -> T:
        """Build a part; an unknown name or parameter is a :class:`ConfigError`."""
        try:
            factory, params_type = self._known[name]
        except KeyError:
            known = ", ".join(self.names())
            message = f"{self._path}: unknown {self._what} {name!r}; known: {known}"
            raise ConfigError(message) from None
        given = dict(params or {})
        known_fields = {f.name for f in fields(params_type)}
        for key in given:
            if key not in known_fields:
                expected = ", ".join(sorted(known_fields)) or "no parameters"
                raise ConfigError(f"{self._path} {name}.{key}: unknown; {name} takes {expected}")
        return factory(params_type(**given))
