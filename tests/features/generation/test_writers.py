"""The two ways to a model: a platform over HTTP, and an engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from deployments.batch import PlatformWriters, checkpoint_sha256
from features.generation import OUTPUT_SCHEMA, Prompt, WriterError, Written

PROMPTS = [Prompt(f"a/{n}", "system", f"user {n}") for n in range(3)]


class Platform(BaseHTTPRequestHandler):
    """Answers with the next status; keeps what it was asked."""

    statuses: ClassVar[list[int]] = []
    asked: ClassVar[list[tuple[dict[str, str], dict[str, Any]]]] = []
    body: ClassVar[str | None] = None

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        request = json.loads(self.rfile.read(length))
        self.asked.append(({k.lower(): v for k, v in self.headers.items()}, request))
        status = self.statuses.pop(0) if self.statuses else 200
        answer = {
            "choices": [{"message": {"content": f"re: {request['messages'][1]['content']}"}}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        }
        body = (self.body or json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that gives up resets its other connections."""


@pytest.fixture
def url() -> Iterator[str]:
    Platform.statuses, Platform.asked, Platform.body = [], [], None
    server = QuietServer(("127.0.0.1", 0), Platform)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def write(url: str) -> dict[int, Written]:
    answers: dict[int, Written] = {}
    PlatformWriters(url, "key", "m", "hash")().write(PROMPTS, answers.__setitem__)
    return answers


def test_the_platform_is_asked_at_batch_priority_with_the_schema(url: str) -> None:
    assert write(url) == {n: Written(f"re: user {n}", 7, 3) for n in range(3)}
    headers, body = Platform.asked[0]
    assert headers["x-weir-priority"] == "batch"
    assert headers["authorization"] == "Bearer key"
    assert body["response_format"]["json_schema"]["schema"] == json.loads(json.dumps(OUTPUT_SCHEMA))
    assert body["temperature"] == 0


def test_refusals_that_can_be_waited_for_are(url: str) -> None:
    Platform.statuses = [429, 503, 200]
    assert len(write(url)) == 3
    assert len(Platform.asked) == 5


@pytest.mark.parametrize(("status", "body"), [(401, None), (200, '{"choices": []}'), (200, "[]")])
def test_other_refusals_end_the_work(url: str, status: int, body: str | None) -> None:
    Platform.statuses, Platform.body = [status] * 9, body
    with pytest.raises(WriterError):
        write(url)


def test_nobody_there_ends_the_work() -> None:
    with pytest.raises(WriterError, match="does not answer"):
        write("http://127.0.0.1:1")


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(PlatformWriters("http://h", "secret", "m", "hash"))


def test_a_checkpoints_hash_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = checkpoint_sha256(str(tmp_path))
    assert first == checkpoint_sha256(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert checkpoint_sha256(str(tmp_path)) != first
    assert checkpoint_sha256("org/model") == "hub:org/model"
