"""What operators see of a running replica: its card, MFU and MBU, and a profile."""

from __future__ import annotations

import json
import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def _replicas(platform: Any) -> list[dict[str, Any]]:
    deployments = platform.status()["deployments"]
    return [
        replica
        for deployment in deployments
        for replica in deployment["replicas"]
        if replica.get("address") and "kv_use" in replica
    ]


def _keep_busy(platform: Any, over: threading.Event) -> None:
    client = platform.client()
    while not over.is_set():
        client.completions.create(
            model=platform.model, prompt="hello", max_tokens=200, extra_body={"ignore_eos": True}
        )


def test_a_profile_of_a_live_replica_and_what_it_makes_of_its_cpu(
    platform: Any, tmp_path: Path
) -> None:
    over = threading.Event()
    busy = [threading.Thread(target=_keep_busy, args=(platform, over)) for _ in range(6)]
    for thread in busy:
        thread.start()
    try:
        out = tmp_path / "flame.svg"
        shown: list[str] = []
        for replica in _replicas(platform)[:2]:
            run = platform.weir(
                "profile", replica["replica_id"], "--seconds", "2", "--out", str(out)
            )
            if "does not let py-spy" in run.stderr:
                pytest.skip(run.stderr)
            assert run.returncode == 0, run.stderr
            shown.append(run.stdout)
            ET.parse(out)
        assert any("% of the time in engine" in text for text in shown)
        assert max(replica["mbu"] or 0 for replica in _replicas(platform)) > 0
    finally:
        over.set()
        for thread in busy:
            thread.join()
    assert "weir_replica_mfu_ratio{" in platform.metrics()


def test_the_card_is_what_the_replica_has(platform: Any) -> None:
    card = json.loads(platform.weir("models", "card", platform.model, "--json").stdout)
    text = platform.metrics()
    line = next(line for line in text.splitlines() if line.startswith("vllm:cache_config_info{"))
    assert f'num_gpu_blocks="{card["kv_blocks"]}"' in line
