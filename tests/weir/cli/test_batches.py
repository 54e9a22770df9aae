"""``weir batches`` without a gateway: what it prints, and how it follows a batch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from weir.cli.batches import endpoint_of, follow, row
from weir.cli.exits import CommandError


def state(status: str, completed: int, failed: int = 0, total: int = 10) -> dict[str, Any]:
    return {
        "id": "batch_1",
        "status": status,
        "endpoint": "/v1/chat/completions",
        "created_at": 0,
        "request_counts": {"total": total, "completed": completed, "failed": failed},
    }


def test_a_batch_is_one_line() -> None:
    assert row(state("in_progress", 3, 1)).split()[:5] == [
        "batch_1",
        "in_progress",
        "4/10,",
        "1",
        "failed",
    ]
    assert "failed" not in row(state("completed", 10))


def test_each_new_state_is_told_once_where_there_is_no_terminal() -> None:
    states = iter(
        [
            state("validating", 0, total=0),
            state("in_progress", 3),
            state("in_progress", 3),
            state("completed", 10),
        ]
    )
    slept: list[float] = []
    text = io.StringIO()
    last = follow(lambda: next(states), Console(file=text), slept.append)
    assert last["status"] == "completed"
    assert text.getvalue().splitlines() == ["validating 0/0", "in_progress 3/10", "completed 10/10"]
    assert len(slept) == 3


def test_the_endpoint_is_that_of_the_first_line(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('\n{"url": "/v1/embeddings"}\n')
    assert endpoint_of(file) == "/v1/embeddings"
    for wrong in ("", "hello", "[]", "{}"):
        file.write_text(wrong)
        with pytest.raises(CommandError):
            endpoint_of(file)
