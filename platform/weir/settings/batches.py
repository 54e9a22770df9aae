"""Files that tenants upload, and batch jobs over them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from weir.errors import ConfigError
from weir.settings.section import Section

_MIB = 1024 * 1024
_DAY_S = 86_400.0
_UNITS_S = {"m": 60.0, "h": 3600.0, "d": _DAY_S}

CompletionWindow = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,3}[mhd]$")]


class FilesSettings(Section):
    """``url``: a directory or an fsspec URL (``s3://bucket/folder``); null is the folder ``files``
    in the state folder. ``ttl_s``: a file is deleted so long after it was made, unless its owner
    says otherwise. A tenant's bounds count its outputs of batches too, but only uploads are
    refused by them."""

    url: str | None = None
    max_file_bytes: int = Field(200 * _MIB, ge=1)
    max_files_per_tenant: int = Field(1_000, ge=1)
    max_bytes_per_tenant: int = Field(4096 * _MIB, ge=1)
    ttl_s: float = Field(30 * _DAY_S, ge=3600)


class BatchesSettings(Section):
    """``enabled``: whether there are files and batches at all. ``priority_class``: of
    ``admission.classes``, and the tenant must be allowed to use it; null is the one called batch,
    or else the last one. ``completion_windows``: those that
    a client may ask for; what has not been computed by then has expired.
    ``max_lines_in_flight``: lines that are computed or wait for admission, in all gateways
    together. ``chunk_lines``: lines that a gateway takes on at a time; ``lease_s``: another one
    takes them over when it has not been heard of for so long."""

    enabled: bool = True
    priority_class: str | None = None
    completion_windows: tuple[CompletionWindow, ...] = Field(("24h",), min_length=1)
    max_lines: int = Field(50_000, ge=1, le=1_000_000)
    max_active_per_tenant: int = Field(16, ge=1)
    max_lines_in_flight: int = Field(256, ge=1)
    chunk_lines: int = Field(32, ge=1, le=1024)
    lease_s: float = Field(20.0, ge=1, le=600)


def class_of_batches(settings: BatchesSettings, classes: Sequence[str]) -> str:
    """In which of the classes lines run.

    Raises:
        ConfigError: the settings name one that there is not.
    """
    asked = settings.priority_class
    if asked is None:
        return "batch" if "batch" in classes else classes[-1]
    if asked not in classes:
        raise ConfigError(
            f"batches.priority_class: {asked!r} is not one of {', '.join(classes)}",
            param="batches.priority_class",
        )
    return asked


def window_s(window: str) -> float:
    """The seconds of a completion window, such as ``24h``.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,3})([mhd])", window)
    if found is None:
        raise ValueError(f"{window!r} is no time such as 30m, 24h or 7d")
    return int(found[1]) * _UNITS_S[found[2]]
