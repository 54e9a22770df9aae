"""What the tiers bench asks, counts and marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from load_tests.bench_tiers import (
    BLOCK_BYTES,
    BLOCK_TOKENS,
    DISK,
    KILLED,
    MEMORY,
    NONE,
    SYSTEMS,
    Plan,
    engine_settings,
    marks_of,
)
from load_tests.servers import engine_workload
from load_tests.tiers.rounds import Answer, figures, shuffled
from weir.cards import make_card
from weir.settings.engine import EngineSettings

PLAN = Plan(200, 1600, 4, 3, 1, 7)


def test_the_prompts_are_three_times_the_cache() -> None:
    assert PLAN.prompts * (PLAN.prompt_tokens // BLOCK_TOKENS) == 600


def test_a_block_is_as_large_as_the_models_card_says() -> None:
    workload = engine_workload(None)
    config = json.loads((workload.model / "config.json").read_text("utf-8"))
    card = make_card(config, dtype="float32", kv_dtype="auto", block_size=BLOCK_TOKENS)
    assert card.block_bytes == BLOCK_BYTES
    assert workload.args["block_size"] == BLOCK_TOKENS


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_the_same_cache(system: str, tmp_path: Path) -> None:
    engine = EngineSettings(**engine_settings(system, PLAN, tmp_path))
    assert engine.args["kv_cache_memory_bytes"] == 200 * BLOCK_BYTES
    assert (engine.kv_tiers is None) == (system == NONE)
    if engine.kv_tiers is not None:
        assert (engine.kv_tiers.disk_folder is None) == (system == MEMORY)


def test_every_prompt_comes_once_a_round_in_changing_order() -> None:
    order = shuffled(5, 3, 1)
    rounds = [order[at : at + 5] for at in (0, 5, 10)]
    assert [sorted(each) for each in rounds] == [[0, 1, 2, 3, 4]] * 3
    assert len({tuple(each) for each in rounds}) > 1
    assert order == shuffled(5, 3, 1)


def test_what_failed_counts_as_an_error_only() -> None:
    answers = [
        Answer(0, "right", 0.1, 100, 80),
        Answer(1, "wrong", 0.3, 100, 0),
        Answer(2, error="status 503"),
    ]
    row = figures(answers, {0: "right", 1: "other", 2: ""})
    assert (row["requests"], row["errors"]) == (3, 1)
    assert row["hit_rate_ratio"] == pytest.approx(0.4)
    assert row["answers_identical_ratio"] == 0.5
    assert row["ttft_p50_ms"] == pytest.approx(200.0)


def test_marks_compare_medians_and_say_what_is_missing() -> None:
    def row(system: str, hits: float, ttft: float) -> dict[str, Any]:
        told = {"answers_identical_ratio": 1.0, "errors": 0}
        return {"system": system, "hit_rate_ratio": hits, "ttft_p50_ms": ttft, **told}

    rows = [
        row(NONE, 0.2, 100.0),
        row(MEMORY, 0.8, 60.0),
        row(MEMORY, 0.98, 30.0),
        row(MEMORY, 0.95, 40.0),
        row(NONE + KILLED, 0.0, 120.0),
        row(DISK + KILLED, 0.97, 60.0),
    ]
    marks = {mark.name: mark for mark in marks_of(rows)}
    assert marks["hit rate, memory"].value == 0.95
    assert marks["TTFT p50, memory over no tiers"].value == pytest.approx(0.4)
    assert marks["hit rate, memory and disk"].value is None
    assert marks["hit rate, memory and disk"].reason == "not measured"
    assert marks["hit rate after the replica was killed, disk"].met
    assert marks["TTFT p50 after a kill, disk over no tiers"].value == pytest.approx(0.5)
    assert marks["answers identical"].met
