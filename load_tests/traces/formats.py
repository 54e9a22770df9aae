"""Which reader reads which file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from load_tests.traces.lmcache import load_lmcache
from load_tests.traces.mooncake import load_mooncake
from load_tests.traces.schema import Trace, TraceError
from load_tests.traces.servegen import load_servegen
from load_tests.traces.tables import load_arena, load_azure
from load_tests.traces.weka import load_weka

Reader = Callable[..., Trace]

FORMATS: dict[str, Reader] = {
    "mooncake": load_mooncake,
    "weka": load_weka,
    "azure": load_azure,
    "lmsys-vtc": load_arena,
    "lmcache": load_lmcache,
    "servegen": load_servegen,
}
_PREFIXES = {"lmsys": "lmsys-vtc", **{name: name for name in FORMATS}}


def detect_format(path: Path) -> str:
    """The format that a file's name begins with.

    Raises:
        TraceError: no known name; give the format.
    """
    for prefix, name in _PREFIXES.items():
        if path.name.startswith(prefix):
            return name
    raise TraceError(f"{path}: cannot tell the format from the name; give one of {_known()}")


def load_trace(
    path: Path | str, format: str | None = None, limit: int | None = None, **options: Any
) -> Trace:
    """Read ``path``. ``limit`` bounds the requests (weka: the sessions) that are read.

    Raises:
        TraceError: the file is missing, is not of the format, or the format is unknown.
    """
    path = Path(path)
    name = format or detect_format(path)
    if name not in FORMATS:
        raise TraceError(f"unknown trace format {name!r}; known: {_known()}")
    trace = FORMATS[name](path, limit, **options)
    if not trace.requests:
        raise TraceError(f"{path}: no requests")
    return trace


def _known() -> str:
    return ", ".join(FORMATS)
