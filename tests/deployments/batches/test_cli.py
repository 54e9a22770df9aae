"""``weir batches`` against a gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from deployments.testing.world import World
from tests.deployments.batches.worlds import Gateways, chat_line, jsonl
from weir.cli.batches import batches_app
from weir.cli.exits import CommandError


async def weir(world: World, *arguments: str, key: str = "one") -> Any:
    """Run ``weir batches ...``."""
    given = [*arguments, "--url", world.url]
    env = {"WEIR_API_KEY": key, "WEIR_HOME": "/nonexistent"}
    result: Result = await asyncio.to_thread(
        CliRunner().invoke, batches_app, given, env=env, catch_exceptions=True
    )
    return result


async def test_a_file_is_submitted_followed_and_listed(gateways: Gateways, tmp_path: Path) -> None:
    world = await gateways.start()
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_bytes(jsonl([*(chat_line(i) for i in range(6)), chat_line(6, max_tokens=5000)]))
    run = await weir(world, "submit", str(file), "--wait", "--out", str(out))
    assert run.exit_code == 0, run.output
    batch_id = run.stdout.split()[0]
    assert len(out.read_text().splitlines()) == 6
    assert len((tmp_path / "out.errors.jsonl").read_text().splitlines()) == 1
    assert batch_id in (await weir(world, "list")).stdout
    assert json.loads((await weir(world, "list", "--json")).stdout)[0]["id"] == batch_id
    shown = json.loads((await weir(world, "show", batch_id)).stdout)
    assert shown["request_counts"] == {"total": 7, "completed": 6, "failed": 1}
    assert "no batches" in (await weir(world, "list", key="two")).stdout


async def test_what_is_wrong_is_said(gateways: Gateways, tmp_path: Path) -> None:
    world = await gateways.start()
    file = tmp_path / "in.jsonl"
    file.write_bytes(jsonl([chat_line(1), chat_line(1)]))
    run = await weir(world, "submit", str(file), "--wait")
    assert isinstance(run.exception, CommandError)
    assert "line 2" in run.exception.message
    for arguments in (("show", "batch_none"), ("cancel", "batch_none")):
        run = await weir(world, *arguments)
        assert isinstance(run.exception, CommandError)
        assert run.exception.message.startswith("404")
    run = await weir(world, "submit", str(tmp_path / "none"))
    assert isinstance(run.exception, CommandError)
