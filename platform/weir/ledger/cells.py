"""Values in tables that people open with a spreadsheet."""

from __future__ import annotations

from typing import Any, Final

#: What a spreadsheet would take for a formula.
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")


def cell(value: Any) -> str:
    """Clients choose labels: none of them is a formula to whoever opens the table."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULAS) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
