"""The migration bench: what a client saw of a seam, and the figures that follow."""

from __future__ import annotations

import json
from typing import Any

import pytest

from load_tests.migration.answers import Answer, AnswerWatch, seam_gaps_s
from load_tests.migration.rows import CALM, KILL, Phase, marks, row


def event(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
OPENING = event({"role": "assistant", "content": ""}) + event({"content": "one "})


def watched(*parts: bytes, status: int = 200) -> Answer:
    watch = AnswerWatch(prompt=3, expected_tokens=2, sent_s=10.0)
    watch.header(b"X-Weir-Replica", b"r1")
    for number, part in enumerate(parts):
        watch.body(part, 11.0 + number)
    return watch.finish(status, 20.0)


def test_a_complete_answer_has_its_text_its_arrivals_and_who_began_it() -> None:
    answer = watched(OPENING, event({"content": "two"}) + event({}, "length"), USAGE + DONE)
    assert answer.error is None
    assert answer.text == "one two"
    assert answer.output_tokens == 2
    assert answer.arrivals_s == (11.0, 12.0, 13.0)
    assert answer.replica == "r1"
    assert answer.prompt == 3


def test_pieces_of_one_read_are_one_arrival() -> None:
    watch = AnswerWatch(0, 2, 0.0)
    for piece in (OPENING, event({"content": "two"}), event({}, "length")):
        watch.body(piece, 1.0)
    watch.body(USAGE + DONE, 2.0)
    assert watch.finish(200, 2.0).arrivals_s == (1.0, 2.0)


@pytest.mark.parametrize(
    ("parts", "status", "words"),
    [
        ((b'{"error":{"message":"no replica"}}',), 503, "status 503: no replica"),
        ((b"<html>",), 502, "status 502: <html>"),
        ((OPENING, b'data: {"error":{"message":"it broke"}}\n\n'), 200, "error event: it broke"),
        ((OPENING, event({}, "length"), USAGE), 200, "no [DONE]"),
        ((OPENING, event({}, "stop"), USAGE, DONE), 200, "finish reason 'stop'"),
        ((OPENING, event({}, "length"), USAGE.replace(b":2", b":1"), DONE), 200, "1 tokens"),
    ],
)
def test_what_is_not_complete_is_an_error(
    parts: tuple[bytes, ...], status: int, words: str
) -> None:
    answer = watched(*parts, status=status)
    assert answer.error is not None
    assert answer.error.startswith(words)
    assert answer.begun == (status == 200)


def test_a_broken_connection_keeps_what_had_arrived() -> None:
    watch = AnswerWatch(0, 2, 0.0)
    watch.body(OPENING + b'data: {"choices":[{"del', 1.0)
    answer = watch.fail("connection lost", 2.0)
    assert (answer.text, answer.error, answer.begun) == ("one ", "connection lost", True)


def streamed(*arrivals_s: float, replica: str = "r1", prompt: int = 0, **more: Any) -> Answer:
    told = {"text": "x", "output_tokens": len(arrivals_s), **more}
    return Answer(prompt, arrivals_s[0] - 1, arrivals_s[-1], arrivals_s, replica, **told)


def test_the_gap_at_a_seam_is_the_one_that_the_fault_made() -> None:
    answer = streamed(1.0, 1.5, 2.25, 7.0, 7.25, 17.0)
    assert answer.gap_at(2.0) == 4.75  # what the dead replica had sent was still on its way
    assert answer.gap_at(3.0) == 4.75
    assert answer.gap_at(0.5) is None
    assert answer.gap_at(17.0) is None


def test_only_streams_of_the_replica_that_was_hit_have_a_seam() -> None:
    hit, other = streamed(1.0, 2.0, 6.0), streamed(1.0, 2.0, 9.0, replica="r2")
    ended = streamed(0.25, 0.5, 1.0)
    assert seam_gaps_s([hit, other, ended], [(2.5, "r1"), (50.0, "r2")]) == [4.0]


def phase(name: str, *answers: Answer) -> Phase:
    counted = {"weir_stream_moves_total": 3.0, "weir_recomputed_tokens_total": 70.0}
    return Phase(name, 0.0, 10.0, answers, [(2.5, "r1")], 1, 4.0, 2, counted, 0.5)


def test_figures_of_a_phase() -> None:
    answers = (
        streamed(1.0, 2.0, 6.0),
        streamed(1.0, 2.0, 3.0, replica="r2", text="y"),
        streamed(11.0, 12.0),
        Answer(0, 0.0, 1.0, error="status 503: no"),
        streamed(1.0, 2.0, error="connection lost"),
    )
    found = row("world", phase(KILL, *answers), {0: "x"})
    assert found["requests"] == 5
    assert found["errors"] == 2
    assert found["errors_after_output"] == 1
    assert found["equal_to_undisturbed_ratio"] == pytest.approx(2 / 3)
    assert found["unequal"] == 1
    assert found["gap_at_seam_ms_max"] == 4000.0
    assert found["completed_req_per_s"] == pytest.approx(0.2)
    assert found["goodput_tokens_per_s"] == pytest.approx(0.3)
    assert found["tokens_computed_twice"] == 70.0
    assert "1 x before output: status 503: no" in found["reason"]
    by_name = {mark.name: mark for mark in marks("world", phase(KILL, *answers), found)}
    assert by_name["world, SIGKILL: client-visible errors"].value == 2
    assert not any(mark.met for mark in by_name.values())


def test_a_phase_without_faults_has_no_target_and_one_without_answers_a_reason() -> None:
    calm = phase(CALM, streamed(1.0, 2.0))
    assert marks("world", calm, row("world", calm, {0: "x"})) == []
    nothing = phase(KILL)
    found = marks("world", nothing, row("world", nothing, {}))
    assert [(mark.value, mark.met) for mark in found] == [(0, True), (None, False)]
