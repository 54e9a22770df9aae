"""Lines of a trace file, gzipped or plain, with errors that name the line."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from load_tests.traces.schema import TraceError


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of the lines that are not blank.

    Raises:
        TraceError: the file cannot be opened or decoded.
    """
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else open(path, encoding="utf-8") as file
        ):
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise TraceError(f"{path}: {error}") from error


def json_lines(path: Path, limit: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) per line, at most ``limit`` of them."""
    for count, (number, line) in enumerate(lines(path)):
        if limit is not None and count >= limit:
            return
        try:
            row = json.loads(line)
        except ValueError as error:
            raise TraceError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise TraceError(f"{path}:{number}: expected an object, not {type(row).__name__}")
        yield number, row


def csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV file that must have ``columns``."""
    reader = csv.DictReader(text for _, text in lines(path))
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise TraceError(f"{path}: no column {', '.join(missing)}")
    for row in reader:
        yield reader.line_num, row


def field(path: Path, number: int, row: dict[str, Any], name: str, kind: type) -> Any:
    """``row[name]`` as ``kind``; the error names file, line and field."""
    try:
        return kind(row[name])
    except KeyError:
        raise TraceError(f"{path}:{number}: no field {name!r}") from None
    except (TypeError, ValueError):
        raise TraceError(
            f"{path}:{number}: {name} should be {kind.__name__}, not {row[name]!r}"
        ) from None
