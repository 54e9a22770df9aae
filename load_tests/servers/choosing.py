"""Which of a bench's systems the command line names."""

from __future__ import annotations

from typing import Protocol, TypeVar


class Named(Protocol):
    """Something with a name on the command line."""

    @property
    def key(self) -> str:
        """The name."""
        ...


NamedT = TypeVar("NamedT", bound=Named)


def chosen(systems: tuple[NamedT, ...], only: str | None) -> tuple[NamedT, ...]:
    """Those that ``only`` names (comma-separated keys).

    Raises:
        ValueError: it names one that does not exist.
    """
    if only is None:
        return systems
    keys = [key.strip() for key in only.split(",") if key.strip()]
    known = [system.key for system in systems]
    if unknown := [key for key in keys if key not in known]:
        raise ValueError(f"no system {unknown[0]!r}; known: {', '.join(known)}")
    return tuple(system for system in systems if system.key in keys)
