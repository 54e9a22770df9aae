"""Options of how media are read: a client may set those that the operator named, within bounds.

They decide on memory: how many pixels of an image, how many frames of a video become tokens, and
which code reads them. What a value costs depends on the model's processor, so weir knows no bounds
of its own, and nothing is accepted unless the operator says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from weir.errors import BadRequestError
from weir.settings.media import OptionBound


def check_media_options(given: Mapping[str, Any], allowed: Mapping[str, OptionBound]) -> None:
    """``given``: the two fields of the body, as they came.

    Raises:
        BadRequestError: there is a key that the model's clients may not set, or not to this value.
    """
    for path, value in _values(given):
        bound = allowed.get(path)
        if bound is None:
            may = ", ".join(sorted(allowed)) or "none"
            raise BadRequestError(f"{path}: this model's clients may set {may}.", param=path)
        if not bound.accepts(value):
            raise BadRequestError(f"{path}: only {bound} is accepted.", param=path)


def _values(given: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Whatever is no mapping, with its path."""
    for name, value in given.items():
        path = before + name
        if isinstance(value, Mapping):
            yield from _values(value, path + ".")
        else:
            yield path, value
