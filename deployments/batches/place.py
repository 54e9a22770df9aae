"""Where files are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from weir.settings.batches import FilesSettings

#: The supervisor tells whatever it starts.
FILES_VARIABLE = "WEIR_FILES_URL"


def files_url(settings: FilesSettings, environment: Mapping[str, str], state: Path) -> str:
    """``WEIR_FILES_URL``, else ``files.url``, else a folder in the state folder."""
    return environment.get(FILES_VARIABLE) or settings.url or str(state.absolute() / "files")
