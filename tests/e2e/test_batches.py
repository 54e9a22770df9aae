"""Batches on the real platform, by the official client and by the command line."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.e2e

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


def content(model: str, count: int, max_tokens: int = 8) -> bytes:
    lines = []
    for number in range(count):
        asked = [{"role": "user", "content": f"What are your opening hours? ({number})"}]
        body = {"model": model, "messages": asked, "max_tokens": max_tokens, "temperature": 0}
        told = {"custom_id": f"c{number}", "method": "POST", "url": CHAT, "body": body}
        lines.append(json.dumps(told).encode())
    return b"\n".join(lines)


def begin(platform: Any, count: int, max_tokens: int = 8) -> Any:
    client = platform.client()
    lines = content(platform.model, count, max_tokens)
    file = client.files.create(file=("requests.jsonl", lines), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")


def ended(platform: Any, batch_id: str, limit_s: float = 120.0) -> Any:
    deadline_s = time.monotonic() + limit_s
    while True:
        batch = platform.client().with_options(max_retries=8).batches.retrieve(batch_id)
        if batch.status in ENDED:
            return batch
        assert time.monotonic() < deadline_s, batch
        time.sleep(0.2)


def answers(platform: Any, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    text = platform.client().files.content(file_id).text
    return [json.loads(line) for line in text.splitlines()]


def test_the_official_clients_example_runs(platform: Any) -> None:
    batch = ended(platform, begin(platform, 20).id)
    assert batch.status == "completed", batch.errors
    assert batch.request_counts.completed == 20
    assert batch.error_file_id is None
    lines = answers(platform, batch.output_file_id)
    assert sorted(line["custom_id"] for line in lines) == sorted(f"c{i}" for i in range(20))
    bodies = [line["response"]["body"] for line in lines]
    assert all(body["choices"][0]["message"]["content"] for body in bodies)
    counted = sum(body["usage"]["completion_tokens"] for body in bodies)
    assert batch.usage.output_tokens == counted


def test_the_command_line_follows_a_batch(platform: Any, tmp_path: Path) -> None:
    file, out = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    file.write_bytes(content(platform.model, 5))
    run = platform.weir("batches", "submit", str(file), "--wait", "--out", str(out))
    assert run.returncode == 0, run.stderr
    assert "completed 5/5" in run.stderr
    assert len(out.read_text().splitlines()) == 5
    assert run.stdout.strip() in platform.weir("batches", "list").stdout


def test_every_line_has_one_result_though_a_gateway_is_killed(platform: Any) -> None:
    """Each of the gateways in turn, so that the one that computes the lines is among them."""
    batch = begin(platform, 300, max_tokens=16)
    for gateway in gateways(platform):
        await_progress(platform, batch.id)
        os.kill(gateway, signal.SIGKILL)
        await_gateways(platform, gateway)
    batch = ended(platform, batch.id, 240.0)
    assert batch.status == "completed"
    assert batch.request_counts.completed == 300
    lines = answers(platform, batch.output_file_id)
    assert sorted(line["custom_id"] for line in lines) == sorted(f"c{i}" for i in range(300))


def gateways(platform: Any) -> list[int]:
    """The processes of this platform's gateways."""
    record = json.loads((platform.home / "supervisor.json").read_text())
    run_id = record["run_id"]
    found = []
    for process in psutil.process_iter():
        try:
            if "ServeReplica:weir:gateway" not in " ".join(process.cmdline()):
                continue
            ours = run_id in process.environ().values()
        except psutil.Error:
            continue
        if ours:
            found.append(process.pid)
    assert found, "no gateway was found"
    return found


def await_gateways(platform: Any, killed: int, limit_s: float = 240.0) -> None:
    """Wait until another gateway is up in the place of the one that was killed."""
    deadline_s = time.monotonic() + limit_s
    while True:
        told = platform.weir("status", "--json")
        if told.returncode == 0 and killed not in gateways(platform):
            states = {each["name"]: each for each in json.loads(told.stdout)["deployments"]}
            if states["gateway"]["replica_states"].get("RUNNING", 0) >= 2:
                return
        assert time.monotonic() < deadline_s, told.stdout
        time.sleep(0.5)


def await_progress(platform: Any, batch_id: str) -> None:
    client = platform.client().with_options(max_retries=8)
    before, deadline_s = None, time.monotonic() + 60
    while True:
        batch = client.batches.retrieve(batch_id)
        done = batch.request_counts.completed
        if batch.status in ENDED or (before is not None and done > before):
            return
        before = done if before is None else before
        assert time.monotonic() < deadline_s, batch
        time.sleep(0.1)
