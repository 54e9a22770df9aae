"""What came of each probe, and the rows of the report that are made of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MARK = "WEIR-CLIENT "
WORKS = "works"
FAILS = "fails"
MODEL = "model"
NOT_APPLICABLE = "not applicable"
KINDS = (WORKS, FAILS, MODEL, NOT_APPLICABLE)
CAPABILITIES = (
    "chat",
    "stream",
    "tools",
    "tools streamed",
    "tool loop",
    "json",
    "logprobs",
    "n",
    "usage",
    "cancel",
    "errors",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """``probe`` is CLIENT/CAPABILITY. ``detail``: the reason, or the error's first line."""

    probe: str
    kind: str
    detail: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.probe}: {self.kind!r} is no outcome")
        if self.kind != WORKS and not self.detail:
            raise ValueError(f"{self.probe}: {self.kind} without a reason")

    @property
    def client(self) -> str:
        """The client's key."""
        return self.probe.partition("/")[0]

    @property
    def capability(self) -> str:
        """What was tried."""
        return self.probe.partition("/")[2]


def read_outcomes(output: str) -> list[Outcome]:
    """The outcomes in a probe's standard output; all other lines are the clients' own."""
    found = []
    for line in output.splitlines():
        if line.startswith(MARK):
            told = json.loads(line.removeprefix(MARK))
            found.append(Outcome(told["probe"], told["outcome"], told["detail"]))
    return found


def missing(expected: Sequence[str], found: Iterable[Outcome], reason: str) -> list[Outcome]:
    """A failure for every probe that was not reported: its process ended before."""
    reported = {outcome.probe for outcome in found}
    return [Outcome(probe, FAILS, reason) for probe in expected if probe not in reported]


def rows_of(
    outcomes: Sequence[Outcome], versions: Mapping[str, str], titles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One row a client, in the order of its first outcome: its versions, a figure for each
    capability, and in ``reason`` why one is not ``works``."""
    rows: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        key = outcome.client
        row = rows.setdefault(key, {"system": titles.get(key, key), "client": key})
        row.setdefault("versions", versions.get(key, ""))
        row[outcome.capability] = outcome.kind
        if outcome.kind != WORKS:
            row.setdefault("reasons", {})[outcome.capability] = outcome.detail
    return list(rows.values())
