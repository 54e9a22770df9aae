"""The simulator against NVIDIA Dynamo's own offline simulator, on the same Mooncake file.

``python -m dynamo.replay`` (ai-dynamo 1.3.1 with ai-dynamo-runtime, in an environment of its own:
--python names its interpreter) replays the file with round robin and with its KV router; ours
replays it with the same engines, the mocker's step times made linear (``dynamo-mocker``) and the
same two rules. It checks two things: that our engine model is right, and that our Dynamo
opponent is no straw man.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from load_tests.peers.dynamo import DynamoKvRouter
from load_tests.peers.simple import RoundRobin
from load_tests.report import Mark, Report, Row, bench_parser, emit
from load_tests.sim.calibrations import DYNAMO_MOCKER
from load_tests.sim.engine import EngineConfig
from load_tests.sim.figures import Slo
from load_tests.sim.run import run_open
from load_tests.sim.system import System
from load_tests.sim.world import FleetConfig
from load_tests.traces import Trace, load_trace

CONFIG = EngineConfig(blocks=2048, block_size=512, max_batched_tokens=2048, max_sequences=256)
FIGURES = {
    "hit_rate": ("first_admission_prefix_cache_reused_ratio", 0.1),
    "ttft_p50_ms": ("median_ttft_ms", 0.1),
    "ttft_p90_ms": ("p90_ttft_ms", 0.1),
    "ttft_p99_ms": ("p99_ttft_ms", 0.1),
    "tpot_p50_ms": ("median_tpot_ms", 0.1),
    "tpot_p99_ms": ("p99_tpot_ms", 0.2),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run both and compare."""
    parser = bench_parser("check-dynamo", __doc__)
    parser.add_argument("trace", type=Path, help="a Mooncake file, plain or gzipped")
    parser.add_argument("--python", type=Path, required=True, help="with ai-dynamo installed")
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--speedup", type=float, default=2.0)
    options = parser.parse_args(argv)
    # As recorded, ticks and all: that is how the other one replays it.
    trace = replace(load_trace(options.trace, "mooncake"), tick_s=0.0)
    rows: list[Row] = []
    marks: list[Mark] = []
    systems: dict[str, System] = {"round_robin": RoundRobin(), "kv_router": DynamoKvRouter()}
    for mode, system in systems.items():
        ours = _ours(system, trace, options.replicas, options.speedup, options.seed)
        theirs = _theirs(options.python, options.trace, mode, options.replicas, options.speedup)
        rows.append({"table": mode, "system": "this simulator", **ours})
        rows.append({"table": mode, "system": "dynamo.replay", **theirs})
        for name, (_, target) in FIGURES.items():
            error = abs(ours[name] / theirs[name] - 1)
            marks.append(Mark(f"{mode}: {name}, difference", error, "relative", target, "lower"))
    return emit(Report("check-dynamo", options.seed, rows, marks), options, argv)


def _ours(
    system: System, trace: Trace, replicas: int, speedup: float, seed: int
) -> dict[str, float]:
    fleet = FleetConfig(replicas, CONFIG, DYNAMO_MOCKER)
    rate = len(trace.requests) / trace.span_s * speedup
    outcome = run_open(system, trace, fleet, rate, Slo(5.0, 0.15), seed)
    return {name: float(outcome.figures[name]) for name in FIGURES}


def _theirs(python: Path, path: Path, mode: str, replicas: int, speedup: float) -> dict[str, float]:
    engine = {
        "block_size": CONFIG.block_size,
        "num_gpu_blocks": CONFIG.blocks,
        "max_num_batched_tokens": CONFIG.max_batched_tokens,
        "max_num_seqs": CONFIG.max_sequences,
        "enable_prefix_caching": True,
        "enable_chunked_prefill": True,
    }
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command: list[str] = [str(python), "-m", "dynamo.replay", str(_plain(path, Path(folder)))]
        command += ["--extra-engine-args", json.dumps(engine), "--num-workers", str(replicas)]
        command += ["--router-mode", mode, "--replay-mode", "offline"]
        command += ["--arrival-speedup-ratio", str(speedup), "--report-json", str(report)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            raise SystemExit(f"dynamo.replay failed:\n{done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(report.read_text("utf-8"))
    return {name: float(found[key]) for name, (key, _) in FIGURES.items()}


def _plain(path: Path, folder: Path) -> Path:
    """The other one does not read gzip."""
    if path.suffix != ".gz":
        return path
    plain = folder / path.stem
    with gzip.open(path, "rb") as packed, plain.open("wb") as file:
        shutil.copyfileobj(packed, file)
    return plain


if __name__ == "__main__":
    raise SystemExit(main())
