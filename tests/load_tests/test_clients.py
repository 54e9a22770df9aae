"""The bench of other people's clients: its own logic, and that the document shows its results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from load_tests.bench_clients import marks_of, with_earlier
from load_tests.clients.catalogue import FILES, PROGRAM_PACKAGES, PROGRAM_TITLES, clients
from load_tests.clients.environments import pins_of
from load_tests.clients.outcomes import Outcome, missing, read_outcomes, rows_of
from load_tests.clients.programs import PROGRAMS, Command, Program, first_error, run_program
from load_tests.clients.server import Platform
from load_tests.clients.table import DOCUMENT, RESULTS, markdown, with_table

PLATFORM = Platform("http://127.0.0.1:9", "weir_key", "a-model")


def test_outcomes_are_read_from_between_what_clients_print() -> None:
    output = (
        "a client's warning\n"
        'WEIR-CLIENT {"probe": "a/stream", "outcome": "works", "detail": ""}\n'
        "progress 100%\n"
        'WEIR-CLIENT {"probe": "a/n", "outcome": "fails", "detail": "ValueError: no"}\n'
    )
    assert read_outcomes(output) == [
        Outcome("a/stream", "works"),
        Outcome("a/n", "fails", "ValueError: no"),
    ]


def test_an_outcome_without_its_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="without a reason"):
        Outcome("a/n", "fails")
    with pytest.raises(ValueError, match="no outcome"):
        Outcome("a/n", "green")


def test_what_a_dead_process_did_not_report_has_failed() -> None:
    found = [Outcome("a/chat", "works")]
    assert missing(["a/chat", "a/n"], found, "ended") == [Outcome("a/n", "fails", "ended")]


def test_a_row_has_all_of_a_client_and_marks_count_the_rows() -> None:
    outcomes = [
        Outcome("a/chat", "works"),
        Outcome("b/chat", "model", "no valid call"),
        Outcome("a/n", "fails", "ValueError: no"),
    ]
    rows = rows_of(outcomes, {"a": "a 1.0"}, {"a": "The A"})
    assert rows[0] == {
        "system": "The A",
        "client": "a",
        "versions": "a 1.0",
        "chat": "works",
        "n": "fails",
        "reasons": {"n": "ValueError: no"},
    }
    assert [mark.value for mark in marks_of(rows)] == [1.0, 1.0]


def test_clients_not_tried_now_stay_from_an_earlier_report() -> None:
    old = [{"client": "curl", "runs": "fails"}, {"client": "openai-python-chat", "chat": "works"}]
    new = [{"client": "curl", "runs": "works"}]
    assert with_earlier(new, old) == [old[1], new[0]]


def test_every_client_has_its_pins_its_probes_and_its_title() -> None:
    keys = [client.key for client in clients()]
    assert len(keys) == len(set(keys))
    for file in FILES:
        pins = pins_of(file.environment).read_text("utf-8")
        for client in file.clients:
            assert f"{client.key}" in file.path.read_text("utf-8") or "vercel" in client.key
            assert all(package in pins for package in client.packages)
    for program in PROGRAMS:
        assert program.key in PROGRAM_TITLES
        if program.environment:
            pins = pins_of(program.environment).read_text("utf-8")
            assert all(package in pins for package in PROGRAM_PACKAGES[program.key])


def test_probes_written_out_in_a_file_are_expected_of_it() -> None:
    expected = next(file for file in FILES if file.name == "openai_python.py").expected()
    assert len(expected) == 33
    assert "openai-python-responses/tools streamed" in expected


def _program(*argv: str) -> Program:
    return Program("curl", None, lambda *_: Command(argv, limit_s=5), first_error)


def test_a_program_is_judged_by_what_it_said(tmp_path: Path) -> None:
    said = run_program(_program("echo", "HTTP 404 not found"), PLATFORM, tmp_path, tmp_path)
    assert (said.kind, said.detail) == ("fails", "exit code 0: HTTP 404 not found")
    good = Program("curl", None, lambda *_: Command(["echo", "hello"]), lambda _: "")
    assert run_program(good, PLATFORM, tmp_path, tmp_path).kind == "works"
    absent = run_program(_program("/no/such/program"), PLATFORM, tmp_path, tmp_path)
    assert (absent.kind, absent.detail) == ("not applicable", "not installed: program")


def test_a_program_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    slow = Program("curl", None, lambda *_: Command(["sleep", "60"], limit_s=0.2), first_error)
    assert run_program(slow, PLATFORM, tmp_path, tmp_path).detail == "not done after 0 s"


def test_every_program_is_told_the_url_and_the_key(tmp_path: Path) -> None:
    for program in PROGRAMS:
        place = tmp_path / program.key
        place.mkdir()
        command = program.command(PLATFORM, tmp_path, place)
        told = [*command.argv, *command.env.values()]
        assert any(PLATFORM.key in word for word in told), program.key
        assert any(PLATFORM.url in word for word in told) or program.key == "codex"


def test_the_document_shows_the_results() -> None:
    rows = json.loads(RESULTS.read_text("utf-8"))["rows"]
    document = DOCUMENT.read_text("utf-8")
    assert document == with_table(document, markdown(rows)), "run load_tests.clients.table"
    with pytest.raises(ValueError, match="no <!--"):
        with_table("a document without marks", "| a |")
