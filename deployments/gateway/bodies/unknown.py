"""Fields of a request that weir does not know: counted, named, or refused."""

from __future__ import annotations

import string

HEADER = b"x-weir-ignored"
#: Names that are listed, and characters of each.
MAX_NAMES = 16
MAX_NAME_CHARACTERS = 64
_USABLE = frozenset(string.ascii_letters + string.digits + "_-.[]")


class Unknown:
    """What a request's unknown fields are called. ``refused``: they are a 400 instead."""

    __slots__ = ("_more", "_names", "refused")

    def __init__(self, refused: bool = False) -> None:
        self.refused = refused
        self._names: dict[str, None] | None = None
        self._more = False

    def add(self, place: str, name: str) -> None:
        """An object at ``place`` of the body has an unknown field. Any text may be its name."""
        usable = "".join(c if c in _USABLE else "?" for c in name[:MAX_NAME_CHARACTERS])
        full = f"{place}.{usable}" if place else usable
        if self._names is None:
            self._names = {}
        if full not in self._names and len(self._names) == MAX_NAMES:
            self._more = True
        else:
            self._names[full] = None

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The response header that names them, each once; none where all fields are known."""
        if not self._names:
            return []
        names = [*self._names, "..."] if self._more else self._names
        return [(HEADER, ", ".join(names).encode())]
