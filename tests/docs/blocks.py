"""The fenced blocks of the documents: what they are, and whether they are run.

A block's first line is ```` ```LANGUAGE [file=NAME] [no-run: REASON] ````. Blocks of ``bash`` and
``python`` are run, those of ``yaml`` are checked as settings, unless a reason says why not. A block
of ``text expect`` is what the block before it has to print: each of its lines, in this order, with
``…`` for anything. ``file=NAME`` writes the block to a file for the blocks that follow it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = ("bash", "python")
CHECKED = ("yaml",)
SHOWN = ("text", "toml", "json", "mermaid")
_FENCE = re.compile(
    r"^```(?P<language>[a-z]*)(?P<expect> expect)?(?: file=(?P<file>[\w.-]+))?"
    r"(?: no-run: (?P<reason>\S.*))?$"
)


@dataclass(frozen=True)
class Block:
    """One block; ``line`` is that of its first fence."""

    document: str
    line: int
    language: str
    text: str
    file: str | None = None
    no_run: str | None = None
    expects: str | None = None

    @property
    def name(self) -> str:
        """Where it is."""
        return f"{self.document}:{self.line}"


def documents() -> list[Path]:
    """README and docs/*.md; decisions are history, and are not here."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: Path) -> list[Block]:
    """All blocks of a document, each with what it has to print.

    Raises:
        ValueError: a fence that is not understood, or that is never closed.
    """
    found: list[Block] = []
    for line, info, text in _fenced(document):
        matched = _FENCE.match(info)
        if matched is None:
            raise ValueError(f"{document.name}:{line}: what is {info!r}?")
        if matched["expect"]:
            found[-1] = Block(**{**vars(found[-1]), "expects": text})
            continue
        name = document.relative_to(ROOT).as_posix()
        found.append(
            Block(name, line, matched["language"], text, matched["file"], matched["reason"])
        )
    return found


def all_blocks() -> list[Block]:
    """Those of all documents."""
    return [block for document in documents() for block in blocks(document)]


def expected(block: Block) -> re.Pattern[str]:
    """Finds what a block has to print."""
    lines = (block.expects or "").strip().splitlines()
    patterns = [".*".join(re.escape(part) for part in line.split("…")) for line in lines]
    return re.compile(r"(?:.*\n)*?".join(f"{each}\\s*\n" for each in patterns), re.MULTILINE)


def _fenced(document: Path) -> Iterator[tuple[int, str, str]]:
    opened, info, lines = 0, "", list[str]()
    for number, line in enumerate(document.read_text("utf-8").splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif not opened:
            opened, info, lines = number, line, []
        elif line == "```":
            yield opened, info, "\n".join(lines) + "\n"
            opened = 0
        else:
            raise ValueError(f"{document.name}:{number}: a block within a block")
    if opened:
        raise ValueError(f"{document.name}:{opened}: never closed")
