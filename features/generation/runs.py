"""Generation runs on disk: a plan, parts that are there whole or not at all, and a journal of what
was paid for but is not yet a part.

=====================================  =======================================================
generated/version=V/plan.json          entities by part, model, template: fixed at the start
generated/version=V/part-00007.parquet a finished part
generated/version=V/part-00007.jsonl   answers of a part that is being worked on
generated/version=V/published.json     numbers of the parts that are in the offline store
generated/version=V/run.json           how it ended: what was published, what was not, and why
generated/quarantine/version=V/        parts that failed their checks, with the reasons
=====================================  =======================================================
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.desk_data.writing import replace_text, write_table
from features.generation.writing import ModelIdentity, Written

PART_SCHEMA = pa.schema(
    [
        ("entity", pa.string()),
        ("text", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("model_id", pa.string()),
        ("checkpoint_sha256", pa.string()),
        ("template_sha256", pa.string()),
        ("generated_at", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run writes. ``parts``: entities, in the order of their importance."""

    version: str
    identity: ModelIdentity
    template_name: str
    template_text: str
    template_sha256: str
    source: str
    parts: tuple[tuple[str, ...], ...]

    @property
    def entities(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(entity for part in self.parts for entity in part)

    def same_work(self, identity: ModelIdentity, template_sha256: str) -> bool:
        """Whether what is left of this plan would be written by the same model and template."""
        return self.identity == identity and self.template_sha256 == template_sha256


class Run:
    """One version's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan_file = folder / "plan.json"
        self.published_file = folder / "published.json"
        self.end_file = folder / "run.json"

    @property
    def version(self) -> str:
        """The version's name."""
        return self.folder.name.removeprefix("version=")

    @property
    def quarantine(self) -> Path:
        """Where parts of this version go that fail their checks."""
        return self.folder.parent / "quarantine" / self.folder.name

    def plan(self) -> RunPlan:
        """The plan, as it was made."""
        held = json.loads(self.plan_file.read_text("utf-8"))
        return RunPlan(
            **held
            | {
                "identity": ModelIdentity(**held["identity"]),
                "parts": tuple(tuple(part) for part in held["parts"]),
            }
        )

    def part_file(self, number: int) -> Path:
        """Where part ``number`` is once it is finished."""
        return self.folder / f"part-{number:05d}.parquet"

    def journal(self, number: int) -> Journal:
        """The answers of part ``number`` so far."""
        return Journal(self.folder / f"part-{number:05d}.jsonl")

    def finished(self, number: int) -> bool:
        """The part is there, good or quarantined."""
        name = self.part_file(number).name
        return self.part_file(number).exists() or (self.quarantine / name).exists()

    def commit(self, plan: RunPlan, number: int, answers: Mapping[str, Paid]) -> None:
        """Make part ``number`` of this run's plan, then forget its journal."""
        rows = [_part_row(plan, entity, answers[entity]) for entity in plan.parts[number]]
        write_table(pa.Table.from_pylist(rows, schema=PART_SCHEMA), self.part_file(number))
        self.journal(number).file.unlink(missing_ok=True)

    def spent_tokens(self) -> int:
        """Tokens paid for in this version so far: finished parts, quarantined ones, journals."""
        total = 0
        for file in (*self.folder.glob("part-*.parquet"), *self.quarantine.glob("part-*.parquet")):
            table = pq.read_table(file, columns=["prompt_tokens", "output_tokens"])
            total += sum(sum(column.to_pylist()) for column in table.columns)
        for file in self.folder.glob("part-*.jsonl"):
            total += sum(each.tokens for each in Journal(file).read().values())
        return total

    def published(self) -> frozenset[int]:
        """Parts whose rows are in the offline store."""
        try:
            return frozenset(json.loads(self.published_file.read_text("utf-8")))
        except OSError:
            return frozenset()

    def record_published(self, parts: Iterable[int]) -> None:
        """These are, too."""
        every = sorted({*self.published(), *parts})
        replace_text(self.published_file, json.dumps(every) + "\n")

    def end(self, **facts: Any) -> None:
        """Write down how the run ended."""
        replace_text(self.end_file, json.dumps(facts, indent=2) + "\n")

    def ended(self) -> dict[str, Any] | None:
        """How it ended; None while there is work left."""
        try:
            return dict(json.loads(self.end_file.read_text("utf-8")))
        except OSError:
            return None


@dataclass(frozen=True, slots=True)
class Paid:
    """An answer and when it came."""

    written: Written
    generated_at: str

    @property
    def tokens(self) -> int:
        """Prompt and answer."""
        return self.written.prompt_tokens + self.written.output_tokens


class Journal:
    """One line per answer, appended when it comes; a torn last line counts as not there."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self) -> dict[str, Paid]:
        """Answers by entity."""
        if not self.file.exists():
            return {}
        found = {}
        for line in self.file.read_text("utf-8", "replace").splitlines():
            try:
                held = json.loads(line)
                found[held["entity"]] = Paid(Written(**held["written"]), held["generated_at"])
            except (ValueError, TypeError, KeyError):
                continue
        return found

    def add(self, entity: str, written: Written, now: dt.datetime) -> Paid:
        """Append one answer."""
        paid = Paid(written, now.isoformat())
        line = {"entity": entity, "written": dataclasses.asdict(written)}
        with self.file.open("a", encoding="utf-8") as handle:
            # A leading line break closes a line that a kill tore.
            handle.write("\n" + json.dumps(line | {"generated_at": paid.generated_at}) + "\n")
        return paid


class RunFolder:
    """All versions."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def runs(self) -> Iterator[Run]:
        """Every version that has a plan, oldest first."""
        for folder in sorted(self.root.glob("version=*")):
            if (folder / "plan.json").exists():
                yield Run(folder)

    def unfinished(self, identity: ModelIdentity, template_sha256: str) -> Run | None:
        """The newest version with work left for that model and template."""
        for run in reversed(list(self.runs())):
            if run.ended() is None and run.plan().same_work(identity, template_sha256):
                return run
        return None

    def start(self, plan: RunPlan) -> Run:
        """A new version."""
        run = Run(self.root / f"version={plan.version}")
        replace_text(run.plan_file, json.dumps(dataclasses.asdict(plan), indent=1) + "\n")
        return run


def split_into_parts(entities: Sequence[str], size: int) -> tuple[tuple[str, ...], ...]:
    """Consecutive parts of at most ``size`` entities."""
    return tuple(tuple(entities[at : at + size]) for at in range(0, len(entities), size))


def _part_row(plan: RunPlan, entity: str, paid: Paid) -> dict[str, Any]:
    return {
        "entity": entity,
        **dataclasses.asdict(paid.written),
        **dataclasses.asdict(plan.identity),
        "template_sha256": plan.template_sha256,
        "generated_at": paid.generated_at,
    }
