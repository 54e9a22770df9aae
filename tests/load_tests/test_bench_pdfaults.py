"""`weir bench pdfaults`: every moment, in virtual time; some with real engines; planted bugs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from deployments.gateway.handoff import Handoff
from deployments.gateway.prompts import PromptEncoder
from deployments.testing.kept import KeptBlocks
from deployments.testing.words import word_encoder
from load_tests.bench_pdfaults import REAL, main, marks_of
from load_tests.pdfaults.moments import FAULTS, LOSSES, MOMENTS, Fault
from load_tests.pdfaults.virtual import play, row


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return word_encoder(tmp_path_factory.mktemp("words"))


def test_every_moment_is_there_in_every_way() -> None:
    assert len(FAULTS) == len(MOMENTS) * len(LOSSES) + 1
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_answer_is_the_same_and_nothing_is_left(fault: Fault, encoder: PromptEncoder) -> None:
    for seed in range(4):
        played = play(fault, seed, encoder)
        assert played.struck
        assert played.problems == []


@contextmanager
def _believes_everything() -> Iterator[None]:
    """Blocks count as arrived, whatever the answering replica says, and are never given up."""

    async def forever(self: Handoff, stream: Any, leg: Any) -> Any:
        return await stream.next()

    with patch.object(Handoff, "first_output", forever):
        yield


@contextmanager
def _keeps_for_ever() -> Iterator[None]:
    keep = KeptBlocks.keep

    def longer(self: KeptBlocks, *arguments: Any) -> bytes:
        self._lease_s = 1e9
        return keep(self, *arguments)

    with patch.object(KeptBlocks, "keep", longer):
        yield


@pytest.mark.parametrize("plant", [_believes_everything, _keeps_for_ever])
def test_planted_bugs_are_found(plant: Any) -> None:
    with plant():
        found = [row(fault, 3, 1)["wrong"] for fault in FAULTS]
    assert sum(found)


def test_marks_say_what_is_missing() -> None:
    whole = {"system": "a", "table": REAL, "injected": 50, "wrong": 1, "errors": 0}
    rows = [{**whole, "blocks_left": 3}, {"system": "b", "table": REAL, "reason": "no engine"}]
    told = {mark.name: (mark.value, mark.met) for mark in marks_of(rows)}
    assert told == {
        f"{REAL}: injections of each fault": (None, False),
        f"{REAL}: wrong": (1, False),
        f"{REAL}: errors": (0, True),
        f"{REAL}: blocks_left": (3, False),
    }


@pytest.mark.engine
def test_real_engines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    chosen = ["prefill side, in the transfer: SIGSTOP for good", "decode side, mid-decode: SIGKILL",
              "the kept blocks"]  # fmt: skip
    arguments = ["--times", "4", "--at-once", "4", "--keep", str(kept), "--faults", *chosen]
    assert main([*arguments, "--json", "--limit-s", "240"]) == 0
    capsys.readouterr()
    lines = [line for line in kept.read_text().splitlines() if REAL in line]
    assert len(lines) == 3
    assert all('"wrong": 0, "errors": 0, "blocks_left": 0' in line for line in lines), lines
