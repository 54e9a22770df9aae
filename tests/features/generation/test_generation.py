"""Generation without a model: what is paid, what survives a kill, what is published."""

from __future__ import annotations

import collections
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.desk_data import GENERATED, DataFolder, DeskDataSpec, write_desk_data
from features.generation import (
    BUILTIN_TEMPLATES,
    CheckLimits,
    Histories,
    Job,
    Run,
    RunFolder,
    RunPlan,
    Template,
    head_entities,
    parse_output,
    publish,
    read_template,
    run_job,
)
from features.generation.output import TONES, OutputError
from features.generation.prompts import Prompt
from features.generation.runs import split_into_parts
from features.generation.selection import generated_entities
from features.generation.testing import FakeWriters, faithful_answer
from features.generation.work import Budget
from weir.errors import ConfigError

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
DESK = BUILTIN_TEMPLATES["desk"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    folder = DataFolder(tmp_path_factory.mktemp("data"))
    write_desk_data(DeskDataSpec(dt.date(2026, 3, 1), customers=100), folder)
    return folder


@pytest.fixture
def data(made: DataFolder, tmp_path: Path) -> DataFolder:
    """The data set, with generated features of its own."""
    folder = DataFolder(tmp_path / "data")
    folder.root.mkdir()
    for file in made.root.rglob("*"):
        target = folder.root / file.relative_to(made.root)
        target.mkdir() if file.is_dir() else os.link(file, target)
    return folder


@pytest.fixture
def writers(tmp_path: Path) -> FakeWriters:
    return FakeWriters(tmp_path / "ledger")


def start(data: DataFolder, writers: FakeWriters, count: int = 10, part_size: int = 4) -> Run:
    plan = RunPlan(
        "v1",
        writers.identity(),
        DESK.name,
        DESK.text,
        DESK.sha256,
        "head",
        split_into_parts(head_entities(data, count), part_size),
    )
    return RunFolder(data.generated).start(plan)


def job(data: DataFolder, run: Run, writers: FakeWriters, max_tokens: int | None = None) -> Job:
    return Job(run.folder, data.root, writers, workers=0, max_tokens=max_tokens)


def published(data: DataFolder) -> list[dict[str, object]]:
    return list(pq.read_table(data.offline(GENERATED)).to_pylist())


def test_a_run_pays_for_each_entity_once_and_publishes_with_lineage(
    data: DataFolder, writers: FakeWriters
) -> None:
    run = start(data, writers)
    states = [(o.state, o.entities) for o in run_job(job(data, run, writers))]
    assert states == [("done", 4), ("done", 4), ("done", 2)]
    assert list(run_job(job(data, run, writers))) == []
    assert sorted(writers.paid()) == sorted(run.plan().entities)
    assert run.spent_tokens() == 10 * 150
    done = publish(run, data, CheckLimits(), NOW)
    assert (done.rows, done.parts_published, done.parts_left) == (10, 3, 0)
    rows = published(data)
    assert generated_entities(data) == set(run.plan().entities)
    assert {row["event_timestamp"] for row in rows} == {NOW}, "known from the publishing on"
    assert {(row["model_id"], row["checkpoint_sha256"]) for row in rows} == {("fake", "0" * 64)}
    assert {row["template_sha256"] for row in rows} == {DESK.sha256}
    assert all(dt.datetime.fromisoformat(str(row["generated_at"])).tzinfo for row in rows)
    assert publish(run, data, CheckLimits(), NOW).rows == 0, "published twice"


_CHILD = """
import sys
from pathlib import Path
from features.generation import Job, run_job
from features.generation.testing import FakeWriters
run, data, ledger = map(Path, sys.argv[1:])
for outcome in run_job(Job(run, data, FakeWriters(ledger, pause_s=0.02), workers=0)):
    pass
"""


def test_a_killed_run_goes_on_and_pays_for_nothing_twice(
    data: DataFolder, writers: FakeWriters, package_env: dict[str, str]
) -> None:
    run = start(data, writers, count=40, part_size=8)
    arguments = [str(run.folder), str(data.root), str(writers.ledger)]
    for paid_before_kill in (5, 19):
        child = subprocess.Popen([sys.executable, "-c", _CHILD, *arguments], env=package_env)
        deadline = time.monotonic() + 60
        while len(writers.paid()) < paid_before_kill and time.monotonic() < deadline:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert 19 <= len(writers.paid()) < 40, "the kills came too late to show anything"
    for _ in run_job(job(data, run, writers)):
        pass
    counts = collections.Counter(writers.paid())
    assert set(counts) == set(run.plan().entities)
    # Each kill may hit between the payment and the journal's line: once, not a part's worth.
    assert sum(counts.values()) - len(counts) <= 2
    assert run.spent_tokens() == 40 * 150
    assert publish(run, data, CheckLimits(), NOW).rows == 40


def test_a_torn_line_of_the_journal_is_paid_again_and_the_others_are_not(
    data: DataFolder, writers: FakeWriters
) -> None:
    run = start(data, writers, count=4)
    failing = replace(writers, fail_after=2)
    outcomes = list(run_job(job(data, run, failing)))
    assert [(o.state, o.entities, o.reason) for o in outcomes] == [
        ("failed", 2, "the model is gone")
    ]
    journal = run.journal(0).file
    journal.write_text(journal.read_text() + '\n{"entity": "demo/1', "utf-8")
    assert [o.entities for o in run_job(job(data, run, writers))] == [2]
    assert len(writers.paid()) == 4
    assert not journal.exists()


def test_an_unfinished_run_is_found_by_model_and_template(
    data: DataFolder, writers: FakeWriters
) -> None:
    run = start(data, writers)
    runs = RunFolder(data.generated)
    found = runs.unfinished(writers.identity(), DESK.sha256)
    assert found is not None
    assert found.version == "v1"
    assert runs.unfinished(writers.identity(), "other template") is None
    for _ in run_job(job(data, run, writers)):
        pass
    publish(run, data, CheckLimits(), NOW)
    assert runs.unfinished(writers.identity(), DESK.sha256) is None


def test_the_budget_is_kept_and_the_rest_can_be_bought_later(
    data: DataFolder, writers: FakeWriters
) -> None:
    run = start(data, writers)
    outcomes = list(run_job(job(data, run, writers, max_tokens=1000)))
    assert outcomes[-1].state == "over_budget"
    # 1000 - 6 * 150 = 100 is less than the 200 that the next one might cost.
    assert run.spent_tokens() == 900
    partly = publish(run, data, CheckLimits(), NOW)
    assert (partly.rows, partly.parts_left) == (4, 2)
    assert [o.entities for o in run_job(job(data, run, writers, max_tokens=1000))] == [0]
    for _ in run_job(job(data, run, writers, max_tokens=5000)):
        pass
    rest = publish(run, data, CheckLimits(), NOW + dt.timedelta(hours=1))
    assert (rest.rows, rest.parts_left) == (6, 0)
    assert len(writers.paid()) == len(set(writers.paid())) == 10


@given(st.integers(0, 300), st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50))))
def test_no_sequence_of_costs_exceeds_a_budget(tokens: int, costs: list[tuple[int, int]]) -> None:
    budget, spent = Budget(tokens), 0
    waiting = [(bound, min(cost, bound)) for bound, cost in costs]
    while count := budget.fits([bound for bound, _ in waiting]):
        for _, cost in waiting[:count]:
            budget.spend(cost)
            spent += cost
        waiting = waiting[count:]
    assert spent <= tokens
    assert not waiting or waiting[0][0] > tokens - spent, "it stopped although the next one fits"


def wrong_points(prompt: Prompt) -> str:
    answer = json.loads(faithful_answer(prompt))
    answer["summary"] = "The customer Some Body is a gold member with 1 points and 9 orders."
    return json.dumps(answer)


def cut_off(prompt: Prompt) -> str:
    return faithful_answer(prompt)[:40]


def test_a_bad_part_is_quarantined_with_its_reasons_and_the_good_ones_published(
    data: DataFolder, writers: FakeWriters
) -> None:
    run = start(data, writers)
    bad = run.plan().parts[1]
    two_writers = replace(writers, answer=_BadFor(bad))
    for _ in run_job(job(data, run, two_writers)):
        pass
    done = publish(run, data, CheckLimits(), NOW)
    assert (done.rows, done.parts_published, done.parts_quarantined, done.parts_left) == (
        6,
        2,
        1,
        0,
    )
    assert done.reasons == ("part 1: 4 of 4 answers invalid, first: not JSON (cut off?)",)
    assert generated_entities(data).isdisjoint(bad)
    reasons = json.loads((run.quarantine / "part-00001.json").read_text())
    assert "invalid" in reasons["problems"][0]
    assert (run.quarantine / "part-00001.parquet").exists()
    assert run.spent_tokens() == 10 * 150, "what a quarantined part cost is not forgotten"


class _BadFor:
    def __init__(self, entities: tuple[str, ...]) -> None:
        self._entities = entities

    def __call__(self, prompt: Prompt) -> str:
        return cut_off(prompt) if prompt.entity in self._entities else faithful_answer(prompt)


def test_summaries_that_contradict_the_features_are_nulls_and_too_many_spoil_the_part(
    data: DataFolder, writers: FakeWriters
) -> None:
    run = start(data, replace(writers, answer=wrong_points), count=4)
    for _ in run_job(job(data, run, replace(writers, answer=wrong_points))):
        pass
    lenient = publish(run, data, CheckLimits(max_null_share=1.0), NOW)
    assert (lenient.rows, lenient.null_summaries) == (4, 4)
    assert [row["summary"] for row in published(data)] == [None] * 4
    again = start(data, writers, count=4)
    again.published_file.unlink()
    strict = publish(again, data, CheckLimits(), NOW)
    assert (strict.rows, strict.parts_quarantined) == (0, 1)
    assert "say something else" in strict.reasons[0]


def test_rows_of_another_model_are_refused(data: DataFolder, writers: FakeWriters) -> None:
    run = start(data, writers, count=2)
    for _ in run_job(job(data, run, writers)):
        pass
    file = run.part_file(0)
    table = pq.read_table(file)
    model = table.schema.get_field_index("model_id")
    file.unlink()
    pq.write_table(table.set_column(model, "model_id", [["fake", "other"]]), file)
    assert "another model" in publish(run, data, CheckLimits(), NOW).reasons[0]


GOOD = {
    "summary": "The customer Ab Cd is a gold member with 12 points and 1 order.",
    "intents": dict.fromkeys(
        (
            "order_status",
            "order_eta",
            "order_price",
            "return_window",
            "shipping",
            "loyalty",
            "warranty",
            "contact",
        ),
        0,
    ),
    "tone": "warm",
}


def test_good_output_is_read() -> None:
    output = parse_output(json.dumps(GOOD))
    assert (output.tone, output.propensities) == ("warm", GOOD["intents"])


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"summary',
        json.dumps(GOOD | {"more": 1}),
        json.dumps(GOOD | {"tone": "rude"}),
        json.dumps(GOOD | {"summary": "Nice person."}),
        json.dumps(GOOD | {"summary": None}),
        json.dumps(GOOD | {"intents": {}}),
        json.dumps(GOOD | {"intents": dict.fromkeys(GOOD["intents"], 101)}),
        json.dumps(GOOD | {"intents": dict.fromkeys(GOOD["intents"], 0.5)}),
        json.dumps(GOOD | {"intents": dict.fromkeys(GOOD["intents"], True)}),
    ],
)
def test_other_output_is_invalid(text: str) -> None:
    with pytest.raises(OutputError):
        parse_output(text)


def test_templates_render_the_history(data: DataFolder) -> None:
    (entity,) = head_entities(data, 1)
    history = Histories(data, [entity]).history(entity)
    assert history is not None
    assert sum(history.intents.values()) > 0, "the most popular customer has called"
    desk = DESK.prompt(history, TONES)
    assert history.profile["name"] in desk.system
    assert all(order["id"] in desk.system for order in history.orders)
    assert desk.user == "Summarise my account."
    general = BUILTIN_TEMPLATES["general"].prompt(history, TONES)
    assert json.dumps(history.intent_percent()) in general.user
    assert "warm" in general.system
    assert Histories(data, ["demo/0"]).history("demo/0") is None


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("Be kind, it costs $$0.\n---\n$profile\n")
    mine = read_template(str(file))
    assert (mine.name, mine.sha256 != DESK.sha256) == ("mine", True)
    for text, message in (("no line", "no line '---'"), ("a\n---\n$colour", "knows only")):
        with pytest.raises(ConfigError, match=message):
            Template("x", text)
    with pytest.raises(ConfigError, match="neither a built-in"):
        read_template("nothing")


def test_only_one_command_generates_at_a_time(data: DataFolder, tmp_path: Path) -> None:
    from deployments.feature_commands.generating import _only_one
    from weir.cli.exits import CommandError, ExitCode

    with _only_one(data.generated):
        with pytest.raises(CommandError, match="another") as refused, _only_one(data.generated):
            pass
        assert refused.value.exit_code == ExitCode.CONFLICT
    with _only_one(data.generated):
        pass
