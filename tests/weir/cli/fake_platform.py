"""Stands in for deployments.platform: same flags, same files, same signals, no engines.

The environment variable FAKE_PLATFORM chooses how it behaves: ok, fail, hang (never ready),
stubborn (ignores the first SIGTERM), deaf (ignores them all), orphan (leaves a child behind),
broken (says that its Redis is a process that is not there).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import yaml

MODE = os.environ.get("FAKE_PLATFORM", "ok")
STARTED = time.time()
STATUS = {
    "uptime_s": 75.0,
    "deployments": [
        {
            "name": "gateway",
            "app": "weir",
            "status": "HEALTHY",
            "replicas": [{"replica_id": "g1", "state": "RUNNING", "address": "127.0.0.1:1"}],
        },
        {
            "name": "fake-model",
            "app": "weir",
            "status": "HEALTHY",
            "replicas": [
                {
                    "replica_id": "r1",
                    "state": "RUNNING",
                    "address": "127.0.0.1:2",
                    "running": 3,
                    "waiting": 7,
                    "kv_use": 0.42,
                    "outstanding_tokens": 512,
                    "stats_age_s": 0.1,
                    "mfu": 0.31,
                    "mbu": 0.64,
                },
                {"replica_id": "r2", "state": "STARTING", "address": ""},
            ],
        },
        {
            "name": "pooled+a",
            "app": "weir",
            "status": "HEALTHY",
            "model": "pooled",
            "pool": "a",
            "replicas": [
                {
                    "replica_id": name,
                    "state": "RUNNING",
                    "address": "127.0.0.1:3",
                    "running": 2,
                    "waiting": 1,
                    "kv_use": 0.2,
                    "outstanding_tokens": 100,
                    "role": role,
                    "pool_role": "mixed",
                    "changes_role": True,
                }
                for name, role in (("a1b2", "mixed"), ("a9", "prefill"))
            ],
        },
    ],
}


class Handler(BaseHTTPRequestHandler):
    """Enough of the gateway for `weir status` and `weir chat`."""

    def do_GET(self) -> None:
        if self.path == "/weir/status":
            token = os.environ["WEIR_INTERNAL_TOKEN"]
            good = self.headers["Authorization"] == f"Bearer {token}"
            self._answer(200 if good else 401, STATUS)
        else:
            self._answer(200, {"data": [{"id": "fake-model"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/weir/roles":
            if "split" in asked:
                changes = [{"replica_id": "a1b2", "role": "prefill"}]
                self._answer(200, {"changes": [*changes, {"replica_id": "c3", "role": "decode"}]})
            elif asked["role"] == "decode":
                self._answer(409, {"error": {"message": "it is the last one"}})
            else:
                changes = [{"replica_id": asked.get("replica", "a1b2"), "role": asked["role"]}]
                self._answer(200, {"changes": changes if asked.get("count") != 2 else []})
            return
        if asked["model"] != "fake-model":
            self._answer(404, {"error": {"message": f"no model {asked['model']}"}})
            return
        if not self.headers["Authorization"].startswith("Bearer weir_"):
            self._answer(401, {"error": {"message": "bad key"}})
            return
        roles = ",".join(message["role"] for message in asked["messages"])
        self.send_response(200)
        self.end_headers()
        for piece in (roles, ": ", asked["messages"][-1]["content"].upper()):
            event = {"choices": [{"delta": {"content": piece}}]}
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")

    def _answer(self, code: int, body: object) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *arguments: object) -> None:
        pass


class Stops:
    """Counts SIGTERMs and knows when it is time to end."""

    def __init__(self) -> None:
        self.count = 0
        self.ended = threading.Event()
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self.count += 1
        if MODE != "deaf" and (MODE != "stubborn" or self.count > 1):
            self.ended.set()


def apply(settings: Path, say: Callable[..., None]) -> None:
    """Refuses more than five replicas."""
    replicas = yaml.safe_load(settings.read_text())["models"][0]["replicas"]
    if replicas > 5:
        say("apply", "fail", error=f"no room for {replicas}")
    else:
        say("apply", "done", f"{replicas} replicas")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    flags = parser.parse_args()
    settings = yaml.safe_load(flags.settings.read_text())
    stops = Stops()

    def say(stage: str, state: str, detail: str = "", error: str = "") -> None:
        event = {"t": time.time() - STARTED, "stage": stage, "state": state, "detail": detail}
        with (flags.state / "progress.jsonl").open("a") as handle:
            handle.write(json.dumps(event | ({"error": error} if error else {})) + "\n")

    print(f"fake platform, mode {MODE}", flush=True)
    print("bytecode:", "PYTHONDONTWRITEBYTECODE" not in os.environ, flush=True)
    say("redis", "start")
    say("redis", "done", "embedded")
    say("model:fake-model", "progress", "1 of 2 replicas running")
    if MODE == "fail":
        print("RuntimeError: no such model", flush=True)
        say("model:fake-model", "fail", error="no such model")
        return 1
    child = None
    if MODE in ("hang", "orphan"):
        sleep = [sys.executable, "-c", "import time; time.sleep(120)"]
        child = subprocess.Popen(sleep, start_new_session=True)
        (flags.state / "child.pid").write_text(str(child.pid))
    if MODE == "hang":
        stops.ended.wait(120)
        return 0
    address = (settings["server"]["host"], settings["server"]["port"])
    server = ThreadingHTTPServer(address, Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ready = {
        "pid": os.getpid(),
        "create_time": psutil.Process().create_time(),
        "url": f"http://{address[0]}:{address[1]}",
        "models": ["fake-model"],
        "started_at": STARTED,
        "seconds_to_ready": 1.5,
    }
    if MODE == "broken":
        me = {"pid": os.getpid(), "create_time": psutil.Process().create_time()}
        ready["parts"] = {"HAProxy": me, "Redis": me | {"create_time": 1.0}}
    (flags.state / "platform.json").write_text(json.dumps(ready))
    say("ready", "done", "first token after 0.1 s")
    signal.signal(signal.SIGHUP, lambda *_: apply(flags.settings, say))
    stops.ended.wait(120)
    server.shutdown()
    (flags.state / "platform.json").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
