"""Offline generation through the running platform: its replicas, its Redis, batch priority."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def test_the_platforms_own_teacher_writes_features_that_its_redis_then_holds(
    platform: Any, tmp_path: Path
) -> None:
    def features(*arguments: str) -> str:
        run = platform.weir("features", *arguments, "--data", str(tmp_path))
        assert run.returncode == 0, run.stderr
        return str(run.stdout)

    features("apply", "--customers", "20", "--tenants", "elsewhere=1")
    generated = features("generate", "--count", "2", "--workers", "0", "--json")
    said = json.loads(generated)
    assert said["published"] == said["materialized"] == 2
    (part,) = tmp_path.glob("generated/version=*/part-00000.parquet")
    entity = json.loads((part.parent / "plan.json").read_text())["parts"][0][0]
    held = json.loads(features("inspect", entity, "--json"))
    assert held["long_tail"] is False
    assert held["views"]["customer_generated"]["values"]["model_id"] == platform.model
