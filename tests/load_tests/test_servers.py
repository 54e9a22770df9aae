"""Starting and ending servers, and what is read of them from /proc."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from load_tests.loadgen import Target
from load_tests.servers import Accounts, Launch, StartError, cpu_between, memory_by_role, start
from load_tests.servers.accounting import ENDED, CpuReading, cpu_by_role, role_of
from load_tests.servers.chunk_upstream import ChunkAnswers
from load_tests.servers.first_answer import await_answer, await_first_text

TARGET = Target("127.0.0.1", 1)
# A child in a session of its own, whose parent ends: nobody's child, found by its mark.
ORPHAN = """
import subprocess, sys, pathlib, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                         start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(60 if len(sys.argv) > 2 else 0)
"""


def launch(code: str, *arguments: str, ready: Path, timeout_s: float = 20) -> Launch:
    command = [sys.executable, "-c", code, *arguments]
    return Launch("it", command, ready.exists, start_timeout_s=timeout_s, stop_timeout_s=5)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("stays", [(), ("stays",)])
def test_everything_that_was_started_is_found_and_ended(
    tmp_path: Path, stays: tuple[str, ...]
) -> None:
    note = tmp_path / "pid"
    with start([launch(ORPHAN, str(note), *stays, ready=note)], TARGET) as server:
        time.sleep(0.3)
        orphan = int(note.read_text())
        assert orphan in server.pids()
        assert os.getpid() not in server.pids()
        assert memory_by_role(server.pids())["server"].pss_mb > 1
    assert gone(orphan)


def test_it_is_known_that_a_server_has_ended_by_itself(tmp_path: Path) -> None:
    note, end = tmp_path / "note", tmp_path / "end"
    code = (
        "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch()\n"
        "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)"
    )
    with start([launch(code, str(note), str(end), ready=note)], TARGET) as server:
        assert not server.ended()
        end.touch()
        deadline_s = time.monotonic() + 20
        while not server.ended():
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


def test_a_server_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    code = "import sys; print('no such model'); sys.exit(3)"
    logs = tmp_path / "logs"
    with (
        pytest.raises(StartError, match="it ended with code 3: no such model"),
        start([launch(code, ready=tmp_path / "never")], TARGET, logs),
    ):
        pass
    assert "no such model" in (logs / "it.log").read_text()


def test_a_server_that_never_answers_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with (
        pytest.raises(StartError, match=r"not ready in 1 s"),
        start([launch(code, ready=tmp_path / "never", timeout_s=1)], TARGET),
    ):
        pass
    assert gone(int(note.read_text()))


@pytest.mark.parametrize(
    ("command_line", "role"),
    [
        ("VLLM::EngineCore", "engine"),
        ("python -m vllm.entrypoints.openai.api_server --model x", "server"),
        ("ray::ServeReplica:default:LLMServer:bench", "replica LLMServer"),
        ("ray::ServeReplica:weir:Gateway.handle_request", "replica Gateway"),
        ("ray::ServeController.listen_for_change", "serve controller"),
        ("ray::ProxyActor", "serve proxy actor"),
        ("/venv/lib/ray/haproxy -f haproxy.cfg", "haproxy"),
        ("/venv/lib/ray/core/src/ray/raylet/raylet --x", "ray core"),
        ("python -P -m deployments.platform --settings s", "supervisor"),
        ("/bin/redis-server 127.0.0.1:6390", "redis"),
    ],
)
def test_roles(command_line: str, role: str) -> None:
    assert role_of(command_line) == role


def fake_process(
    proc: Path, pid: int, title: str, ticks: int, name: str = "python", ended: int = 0
) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "cmdline").write_text(title + "\0")
    (folder / "comm").write_text(name + "\n")
    (folder / "stat").write_text(
        f"{pid} (a (strange) name) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 {ended} 0"
    )
    (folder / "smaps_rollup").write_text("Rss:   2000 kB\nPss:   1000 kB\nPss_Dirty: 1 kB\n")


def test_processes_are_accounted_by_what_they_do(tmp_path: Path) -> None:
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    fake_process(tmp_path, 10, "ray::ServeReplica:weir:Model", 30)
    fake_process(tmp_path, 11, "VLLM::EngineCore", 70)
    fake_process(tmp_path, 12, "ray::ServeReplica:weir:Model", 90, "engine-core")
    seconds = Accounts([10, 11, 12, 99], tmp_path).read().seconds
    assert seconds == {
        (10, "replica Model"): pytest.approx(30 * tick_s),
        (11, "engine"): pytest.approx(70 * tick_s),
        (12, "engine"): pytest.approx(90 * tick_s),
    }
    fake_process(tmp_path, 13, "python -m deployments.platform", 50, ended=500)
    assert cpu_by_role([10, 11, 12, 13, 99], tmp_path) == {
        ENDED: pytest.approx(500 * tick_s),
        "engine": pytest.approx(160 * tick_s),
        "supervisor": pytest.approx(50 * tick_s),
        "replica Model": pytest.approx(30 * tick_s),
    }
    assert memory_by_role([10, 11], tmp_path)["replica Model"].pss_mb == pytest.approx(1.024)


def test_cpu_between_adds_up_roles_and_counts_newcomers_from_their_start() -> None:
    before = CpuReading({(1, "a"): 1.0, (2, "a"): 5.0, (3, "b"): 9.0})
    after = CpuReading({(1, "a"): 2.0, (2, "a"): 5.5, (4, "b"): 3.0})
    assert cpu_between(before, after) == {"b": 3.0, "a": 1.5}


def test_the_chunk_upstream_speaks_openai() -> None:
    answers = ChunkAnswers("m")
    events = (answers.role + answers.text + answers.end(7, 3)).decode()
    payloads = [line[6:] for line in events.splitlines() if line.startswith("data: ")]
    assert payloads[-1] == "[DONE]"
    assert json.loads(payloads[-2])["usage"]["completion_tokens"] == 3
    assert json.loads(payloads[1])["choices"][0]["delta"]["content"]


def test_a_server_is_up_when_it_answers(served_refusals: tuple[Target, list[int]]) -> None:
    target, statuses = served_refusals
    with pytest.raises(StartError, match="status 503: warming up"):
        await_first_text(target, b"{}")
    statuses[:] = [503, 503, 200]
    await_answer(target, b"{}", patience_s=10)
    assert statuses == []
    statuses[:] = [503]
    with pytest.raises(StartError, match="status 503"):
        await_answer(target, b"{}", patience_s=0)


@pytest.fixture
def served_refusals() -> Iterator[tuple[Target, list[int]]]:
    """Answers with the given statuses, one a request; 503 when there are none."""
    statuses: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status = statuses.pop(0) if statuses else 503
            body = b'data: {"delta":{"content":"a"}}\n\n' if status == 200 else b"warming up"
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Target("127.0.0.1", server.server_port), statuses
        server.shutdown()
        thread.join()
