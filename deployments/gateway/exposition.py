"""Prometheus' text format: several expositions made into one. Pure, and without a loop over
samples: there may be a hundred thousand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_HELP = "# HELP "
_WITH_LABELS = re.compile(r"^([a-zA-Z_:][\w:]*)\{", re.MULTILINE)
_WITHOUT = re.compile(r"^([a-zA-Z_:][\w:]*) ", re.MULTILINE)


def labelled(text: str, labels: Mapping[str, str]) -> str:
    """The same samples with more labels. Values: without quotes, backslashes and line breaks."""
    if not labels or not text:
        return text
    pairs = ",".join(f'{name}="{value}"' for name, value in labels.items())
    # A template of re, in which a backslash would have a meaning; there is none.
    text = _WITH_LABELS.sub(rf"\g<1>{{{pairs},", text)
    return _WITHOUT.sub(rf"\g<1>{{{pairs}}} ", text)


def families(text: str, prefixes: tuple[str, ...] = ("",)) -> dict[str, tuple[str, str]]:
    """Of each metric: its two lines of description, and its samples. ``prefixes``: names that are
    wanted."""
    found = {}
    for chunk in text.split(_HELP)[1:]:
        name = chunk.split(" ", 1)[0].rstrip("\n")
        if name.startswith(prefixes):
            help_line, _, rest = chunk.partition("\n")
            type_line, _, samples = rest.partition("\n")
            found[name] = (f"{_HELP}{help_line}\n{type_line}\n", samples)
    return found


def merged(parts: Iterable[Mapping[str, tuple[str, str]]]) -> str:
    """One exposition, in which each metric is described once and its samples stand together."""
    heads: dict[str, str] = {}
    bodies: dict[str, list[str]] = {}
    for part in parts:
        for name, (head, samples) in part.items():
            heads.setdefault(name, head)
            bodies.setdefault(name, []).append(samples)
    return "".join(head + "".join(bodies[name]) for name, head in heads.items())
