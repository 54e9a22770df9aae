"""The table in docs/clients.md, made of docs/results/clients.json:
``python -m load_tests.clients.table`` writes it there."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from load_tests.clients.outcomes import CAPABILITIES, FAILS, MODEL, NOT_APPLICABLE, WORKS
from load_tests.servers.process import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "clients.md"
RESULTS = REPOSITORY / "docs" / "results" / "clients.json"
BEGIN = "<!-- The table: python -m load_tests.clients.table -->"
END = "<!-- End of the table. -->"
SIGNS = {WORKS: "yes", FAILS: "**no**", MODEL: "model", NOT_APPLICABLE: "–"}
_NO_CAPABILITIES = frozenset({"system", "client", "versions", "table", "reasons", "reason"})


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Libraries by capability, programs, further modes, then why something is not ``yes``."""
    libraries = [row for row in rows if row["table"] == "libraries"]
    programs = [row for row in rows if row["table"] == "programs"]
    lines = _grid(("client", *CAPABILITIES), [_library(row) for row in libraries])
    lines += ["", *_grid(("program", "runs"), [_program(row) for row in programs])]
    further = list(_further(libraries))
    if further:
        lines += ["", *_grid(("client", "also tried", "works"), further)]
    reasons = list(_reasons(rows))
    if reasons:
        lines += ["", "Why not:", "", *reasons]
    return "\n".join(lines)


def _library(row: Mapping[str, Any]) -> list[str]:
    name = f"{row['system']} ({row['versions']})" if row.get("versions") else row["system"]
    return [name, *(SIGNS.get(row.get(each, ""), "not tried") for each in CAPABILITIES)]


def _program(row: Mapping[str, Any]) -> list[str]:
    name = f"{row['system']} ({row['versions']})" if row.get("versions") else row["system"]
    return [name, SIGNS.get(row.get("runs", ""), "not tried")]


def _further(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    known = _NO_CAPABILITIES | set(CAPABILITIES)
    return [
        [row["system"], key, SIGNS[row[key]]] for row in rows for key in row if key not in known
    ]


def _reasons(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each failure and each fault of the model, and for what could not be tried."""
    lines = []
    for row in rows:
        if row.get("reason"):
            lines.append(f"- {row['system']}: {row['reason']}")
        for capability, reason in row.get("reasons", {}).items():
            if row[capability] in (FAILS, MODEL):
                lines.append(f"- {row['system']}, {capability}: {_plain(reason)}")
    return lines


def _plain(text: str) -> str:
    return "`" + text.replace("`", "'") + "`"


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rows = [head, ["---"] * len(head), *lines]
    return ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]


def with_table(document: str, table: str) -> str:
    """The document with the table between its two marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} … {END} in the document")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main() -> int:
    """Write the table into the document."""
    rows = json.loads(RESULTS.read_text("utf-8"))["rows"]
    text = with_table(DOCUMENT.read_text("utf-8"), markdown(rows))
    DOCUMENT.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
