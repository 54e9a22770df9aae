"""Gateways as processes that are killed (SIGKILL) while they compute the lines of a batch."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.deployments.batches.worlds import CHAT, chat_line, jsonl

SCRIPT = Path(__file__).with_name("gateway_process.py")
TOTAL = 60


@pytest.fixture
def start(tmp_path: Path, package_env: dict[str, str]) -> Any:
    running: list[subprocess.Popen[str]] = []

    def begin() -> tuple[subprocess.Popen[str], openai.OpenAI]:
        command = [sys.executable, str(SCRIPT), str(tmp_path / "shared")]
        process = subprocess.Popen(command, env=package_env, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        return process, openai.OpenAI(base_url=f"{url}/v1", api_key="one", max_retries=0)

    yield begin
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_every_line_has_one_result_though_gateways_are_killed(start: Callable[[], Any]) -> None:
    process, client = start()
    lines = jsonl(chat_line(i, max_tokens=20) for i in range(TOTAL))
    file = client.files.create(file=("x.jsonl", lines), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    for wanted in (TOTAL // 4, TOTAL // 2):
        _await(client, batch.id, lambda b, n=wanted: b.request_counts.completed >= n)
        process.kill()
        client.close()
        process, client = start()
    batch = _await(client, batch.id, lambda b: b.status == "completed")
    assert batch.request_counts is not None
    assert batch.request_counts.completed == TOTAL
    assert batch.output_file_id is not None
    text = client.files.content(batch.output_file_id).text
    client.close()
    ids = sorted(line.split('"custom_id":"')[1].split('"')[0] for line in text.splitlines())
    assert ids == sorted(f"c{i}" for i in range(TOTAL))


def _await(client: openai.OpenAI, batch_id: str, wanted: Callable[[Any], bool]) -> Any:
    deadline_s = time.monotonic() + 60
    while True:
        batch = client.batches.retrieve(batch_id)
        if wanted(batch):
            return batch
        assert time.monotonic() < deadline_s, batch
        time.sleep(0.02)
