"""Whether a part may be published."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from features.generation.histories import Histories, History
from features.generation.output import Output, OutputError, parse_output
from features.generation.runs import RunPlan

_FACTS = re.compile(r"is a (\w+) member with (\d+) points and (\d+) orders?\.")


@dataclass(frozen=True, slots=True)
class CheckLimits:
    """Shares of a part's rows above which the part is bad.

    ``max_invalid_share``: answers that are not what the schema asks for. ``max_null_share``:
    summaries that were left out because they say something else than the features do.
    """

    max_invalid_share: float = 0.05
    max_null_share: float = 0.5


@dataclass(frozen=True, slots=True)
class PartReport:
    """``rows``: what may be published of the part. ``problems`` is empty for a good part."""

    rows: tuple[dict[str, Any], ...]
    invalid: int
    nulls: int
    problems: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Nothing speaks against publishing."""
        return not self.problems


def check_part(
    plan: RunPlan, rows: Sequence[Mapping[str, Any]], histories: Histories, limits: CheckLimits
) -> PartReport:
    """Schema and ranges of every row, lineage, duplicates, and the shares of bad rows."""
    problems: list[str] = []
    entities = [row["entity"] for row in rows]
    if len(set(entities)) < len(entities):
        problems.append("an entity is there twice")
    lineage = (plan.identity.model_id, plan.identity.checkpoint_sha256, plan.template_sha256)
    if any(
        (row["model_id"], row["checkpoint_sha256"], row["template_sha256"]) != lineage
        for row in rows
    ):
        problems.append("a row was written by another model or template than the plan's")
    kept, reasons, nulls = [], [], 0
    for row in rows:
        history = histories.history(row["entity"])
        try:
            output = parse_output(row["text"])
        except OutputError as error:
            reasons.append(str(error))
            continue
        faithful = history is not None and faithful_summary(output, history)
        nulls += not faithful
        kept.append(_feature_row(row, output, faithful))
    if len(reasons) > limits.max_invalid_share * len(rows):
        problems.append(f"{len(reasons)} of {len(rows)} answers invalid, first: {reasons[0]}")
    if nulls > limits.max_null_share * len(rows):
        problems.append(f"{nulls} of {len(rows)} summaries say something else than the features")
    return PartReport(tuple(kept), len(reasons), nulls, tuple(problems))


def faithful_summary(output: Output, history: History) -> bool:
    """The summary says the name, tier, points and number of orders that the features say."""
    profile = history.profile
    facts = _FACTS.search(output.summary)
    wanted = (profile["tier"], str(profile["loyalty_points"]), str(len(history.orders)))
    return facts is not None and facts.groups() == wanted and profile["name"] in output.summary


def _feature_row(row: Mapping[str, Any], output: Output, faithful: bool) -> dict[str, Any]:
    return {
        "entity": row["entity"],
        "summary": output.summary if faithful else None,
        "tone": output.tone,
        "intent_propensities": json.dumps(output.propensities, separators=(",", ":")),
        "model_id": row["model_id"],
        "checkpoint_sha256": row["checkpoint_sha256"],
        "template_sha256": row["template_sha256"],
        "generated_at": row["generated_at"],
    }
