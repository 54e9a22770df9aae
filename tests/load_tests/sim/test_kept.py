"""A sweep that was stopped goes on where it was."""

from __future__ import annotations

from pathlib import Path

from load_tests.routing.kept import KeptRuns


def test_a_kept_run_is_not_repeated(tmp_path: Path) -> None:
    calls = []

    def run() -> dict[str, object]:
        calls.append(1)
        return {"figures": {"hit_rate": 0.5}}

    path = tmp_path / "kept.jsonl"
    first = KeptRuns(path).once("k", run)
    again = KeptRuns(path)
    assert again.once("k", run) == first
    assert len(calls) == 1
    again.once("other", run)
    assert len(calls) == 2


def test_without_a_file_nothing_outlives_the_object() -> None:
    calls: list[int] = []
    for _ in range(2):
        KeptRuns().once("k", lambda: {"n": calls.append(1)})
    assert len(calls) == 2
