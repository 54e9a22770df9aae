"""The platform that the live measurements run on: a teacher with one place, and a student.

The teacher has one replica that runs one sequence at a time, so that its places run out and not
this machine's cores: on two cores a student would otherwise have nothing left to answer with,
which says something about the machine and nothing about spilling.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load_tests.loadgen import Target
from load_tests.servers.process import Launch, Started, free_port, http_ready, start
from load_tests.servers.weir_platform import MODULE, Keys, write_state
from load_tests.servers.workload import PROFILE
from weir.settings import Settings, load_settings, parse_settings
from weir.tenancy import hash_key, new_key

TEACHER, STUDENT = "weir-teacher", "weir-student"
TTFT_SLO_MS = 2000.0
KINDS = ("long-tail", "overload", "failure", "cost", "capacity", "cascade")


@dataclass(frozen=True, slots=True)
class Tenants:
    """Keys of three tenants: one that may spill, one that forbids it, one with a cascade."""

    spills: str
    forbids: str
    cascades: str


@dataclass(frozen=True, slots=True)
class Live:
    """A platform that answers."""

    url: str
    tenants: Tenants
    started: Started


def settings(
    student: str, tenants: Tenants, port: int, first_tokens: int, threshold: float
) -> Settings:
    """The laptop profile with admission on, a teacher with one place and a student."""
    tree = load_settings(PROFILE).model_dump(mode="json")
    base = tree["models"][0]
    args = base["engine"]["args"]
    cascade = {"enabled": False, "first_tokens": first_tokens, "threshold": threshold}
    teacher = {
        **base,
        "name": TEACHER,
        "replicas": 1,
        "engine": {**base["engine"], "args": {**args, "max_num_seqs": 1}},
        "fallback": {"student": STUDENT, "cascade": cascade},
    }
    pupil = {**base, "name": STUDENT, "source": student, "replicas": 1, "fallback": None}
    tree["models"] = [teacher, pupil]
    tree["server"] |= {"host": "127.0.0.1", "port": port}
    tree["redis"] |= {"port": free_port()}
    if "features" in tree:
        tree["features"] = {"enabled": False}
    tree["admission"] = {
        "enabled": True,
        "classes": {
            "interactive": {"urgency": 0, "ttft_slo_ms": TTFT_SLO_MS, "max_wait_s": 5.0},
            "batch": {"urgency": 2, "max_wait_s": 600.0},
        },
    }
    tree["tenants"] = [
        {"id": "spills", "key_sha256": [hash_key(tenants.spills)]},
        {
            "id": "forbids",
            "key_sha256": [hash_key(tenants.forbids)],
            "fallback": {"forbid": KINDS},
        },
        {
            "id": "cascades",
            "key_sha256": [hash_key(tenants.cascades)],
            "fallback": {"require": ["cascade"]},
        },
    ]
    return parse_settings(tree, "the bench's settings")


@contextlib.contextmanager
def running(student: str, first_tokens: int, threshold: float) -> Iterator[Live]:
    """Start it, and end it with all its processes.

    Raises:
        StartError: it did not come up.
    """
    tenants = Tenants(new_key(), new_key(), new_key())
    port = free_port()
    tree = settings(student, tenants, port, first_tokens, threshold)
    keys = Keys(tenants.spills, secrets.token_urlsafe(24))
    with tempfile.TemporaryDirectory(prefix="wf-") as folder:
        state = write_state(tree, keys, Path(folder))
        command = [sys.executable, "-P", "-m", MODULE, "--settings", str(state / "settings.yaml")]
        launch = Launch(
            "weir",
            [*command, "--state", str(state)],
            _all_up(state),
            {"WEIR_INTERNAL_TOKEN": keys.internal},
            stop_timeout_s=60,
        )
        with start([launch], Target("127.0.0.1", port)) as started:
            if not http_ready(port, "/ready")():
                raise RuntimeError("the platform said it was ready, and is not")
            yield Live(f"http://127.0.0.1:{port}", tenants, started)


def _all_up(state: Path) -> Any:
    # /ready answers as soon as the student does; the supervisor waits for every replica.
    return (state / "platform.json").is_file
