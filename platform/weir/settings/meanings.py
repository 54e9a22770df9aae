"""What each key means: read from docs/configuration.md, the one place where it is written.

Its tables have a row for every key (a test holds it). The wheel carries the page, and a checkout
has it in docs/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path

_CHAPTER = re.compile(r"^## (\S+)$", re.MULTILINE)
_ROW = re.compile(r"^\| `.+\|$", re.MULTILINE)
_BAR = re.compile(r"(?<!\\)\|")
_KEY = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def meanings() -> Mapping[str, str]:
    """Meanings by the key's path, without names and positions: ``models.engine.mode``,
    ``features.services.project``. Empty where this weir was installed without the page."""
    parts = _CHAPTER.split(_page())
    return {
        f"{chapter.removesuffix('[]')}.{key}": meaning
        for chapter, text in zip(parts[1::2], parts[2::2], strict=True)
        for key, meaning in _rows(text)
    }


def _rows(text: str) -> Iterator[tuple[str, str]]:
    for row in _ROW.findall(text):
        cells = [cell.strip() for cell in _BAR.split(row)[1:-1]]
        if len(cells) != 3:  # a table of something else
            continue
        keys, default, meaning = cells
        for key in _KEY.findall(keys):
            yield key, _plain(meaning or f"default: {default}")


def _plain(cell: str) -> str:
    return _LINK.sub(r"\1", cell).replace("\\|", "|").strip()


def _page() -> str:
    shipped = resources.files("weir.settings") / "configuration.md"
    if shipped.is_file():
        return shipped.read_text("utf-8")
    page = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"
    return page.read_text("utf-8") if page.is_file() else ""
