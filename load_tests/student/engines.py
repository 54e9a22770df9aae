"""Starts one engine process after the other, with the laptop profile's engine settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from weir.settings import load_settings

_TIMEOUT_S: Final = 240.0
_SERVER_ONLY: Final = (
    "enable_auto_tool_choice",
    "tool_call_parser",
    "structured_outputs_config",
    "scheduling_policy",
)
ROOT: Final = Path(__file__).resolve().parents[2]


class EngineError(Exception):
    """An engine did not start or broke; the message is its last line of complaint."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What to start: a model's folder, and engine arguments over the laptop profile's."""

    system: str
    folder: str
    arguments: dict[str, Any] = field(default_factory=dict)


def measure(
    engine: Engine, prompts: Sequence[list[int]], batches: Sequence[int], seed: int, repeats: int
) -> dict[str, Any]:
    """The figures of `engine_run.py`. Raises EngineError if there are none."""
    config = json.loads((Path(engine.folder) / "config.json").read_text())
    model = load_settings("laptop").models[0]
    profile = {k: v for k, v in model.engine.args.items() if k not in _SERVER_ONLY}
    job = {
        # Without prefix caching: the same prompts come again, and prefill would cost nothing.
        "arguments": {
            **profile,
            "enable_prefix_caching": False,
            **engine.arguments,
            "model": engine.folder,
        },
        "prompts": list(prompts),
        "batches": list(batches),
        "seed": seed,
        "repeats": repeats,
        "vocabulary": config["vocab_size"],
    }
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env |= {str(key): str(value) for key, value in model.engine.env.items()}
    env |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)]),
    }
    command = [sys.executable, "-m", "load_tests.student.engine_run"]
    try:
        run = subprocess.run(
            command, input=json.dumps(job), env=env, cwd=ROOT, capture_output=True, text=True,
            timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"no result within {_TIMEOUT_S:.0f} s") from error
    if run.returncode or not run.stdout.strip():
        lines = [line for line in run.stderr.splitlines() if "Error" in line]
        raise EngineError(lines[-1][-300:] if lines else f"exit code {run.returncode}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found
