"""A live process under py-spy; traces; and what is said when it cannot be done."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments import traces
from deployments.listener import ReplicaApp
from deployments.profiling import PATH, ProfileError, Profiler, explain, sample_processes
from deployments.streams import TokenStreams
from deployments.stub_generator import StubGenerator
from weir.flame import largest_costs

_BUSY = """
def spin():
    total = 0
    for n in range(10_000):
        total += n * n
    return total
print("ready", flush=True)
while True:
    spin()
"""


async def test_a_busy_process_is_sampled_and_goes_on() -> None:
    busy = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _BUSY, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert busy.stdout is not None
        await busy.stdout.readline()
        try:
            stacks = await sample_processes({"engine": busy.pid}, 1)
        except ProfileError as error:
            if "does not let py-spy" in str(error):
                pytest.skip(str(error))
            raise
        assert busy.returncode is None
        first = largest_costs(stacks)[0]
        assert first.function.startswith("spin")
        assert first.share > 0.5
    finally:
        busy.kill()
        await busy.wait()


def test_what_to_do_without_permission_is_said() -> None:
    assert "ptrace_scope" in explain("Error: Permission Denied: Try running with sudo\n")
    assert "SYS_PTRACE" in explain("Operation not permitted (os error 1)")
    assert explain("Error: no such process") == "py-spy failed: Error: no such process"


async def ask(
    query: str, client: Any, path: str = "/weir/profile", token: bytes = b"t"
) -> tuple[int, bytes]:
    streams = TokenStreams(StubGenerator(0.01))
    app = ReplicaApp(Profiler(client), streams, "t", {PATH: Profiler(client)})
    sent: list[dict[str, Any]] = []

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    headers = [(b"x-weir-token", token)]
    scope = {"type": "http", "path": path, "query_string": query.encode(), "headers": headers}
    await app(scope, None, send)
    return sent[0]["status"], sent[1]["body"]


class Client:
    """Writes what vLLM's profiler would."""

    def __init__(self, folder: Path, profiler: str | None) -> None:
        config = SimpleNamespace(profiler=profiler, torch_profiler_dir=str(folder))
        self.vllm_config = SimpleNamespace(profiler_config=config)
        self._folder = folder

    async def start_profile(self) -> None:
        pass

    async def stop_profile(self) -> None:
        events = [
            {"ph": "X", "cat": "cpu_op", "name": "linear", "ts": 0, "dur": 100, "tid": 1},
            {"ph": "X", "cat": "cpu_op", "name": "mm", "ts": 10, "dur": 80, "tid": 1},
            {"ph": "X", "cat": "python_function", "name": "step", "ts": 0, "dur": 500, "tid": 1},
            {"ph": "X", "cat": "cpu_op", "name": "norm", "ts": 200, "dur": 60, "tid": 1},
        ]
        data = gzip.compress(json.dumps({"traceEvents": events}).encode())
        (self._folder / "rank0.pt.trace.json.gz").write_bytes(data)


async def test_a_trace_names_its_largest_operations(tmp_path: Path) -> None:
    (tmp_path / "older.json").write_text("not a trace")
    client = Client(tmp_path, "torch")
    status, body = await ask("seconds=0.01&kind=torch", client)
    assert status == 200
    answer = json.loads(body)
    assert [Path(file).name for file in answer["files"]] == ["rank0.pt.trace.json.gz"]
    assert [(c["function"], c["share"]) for c in answer["costs"]] == [
        ("mm", 0.5),
        ("norm", 0.375),
        ("linear", 0.125),
    ]
    assert traces.list_traces(tmp_path / "nowhere") == set()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("seconds=1&kind=torch", "profiler_config"),
        ("seconds=9999", "between"),
        ("seconds=x", "x"),
    ],
)
async def test_what_cannot_be_profiled_is_a_409_that_says_why(
    tmp_path: Path, query: str, says: str
) -> None:
    status, body = await ask(query, Client(tmp_path, None))
    assert status == 409
    assert says in json.loads(body)["error"]


async def test_strangers_profile_nothing(tmp_path: Path) -> None:
    status, _ = await ask("seconds=1", Client(tmp_path, None), token=b"wrong")
    assert status == 401
