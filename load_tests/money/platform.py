"""The platform that money is counted on: four gateways, a model with a student, and tenants whose
bounds are reached on the way."""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine

from load_tests.loadgen import Target
from load_tests.servers import EngineWorkload, Launch, Started, free_port, http_ready, start
from load_tests.servers.weir_platform import MODULE, Keys, write_state
from load_tests.servers.workload import PROFILE
from weir.database import database_url, open_database
from weir.settings import Settings, load_settings, parse_settings
from weir.tenancy import hash_key, new_key

MODEL, STUDENT = "bench", "bench-student"
REPLICA_USD_PER_HOUR = 3.6
_USD_PER_MILLION = {
    "input_usd_per_million_tokens": 3.0,
    "cached_input_usd_per_million_tokens": 1.0,
    "output_usd_per_million_tokens": 10.0,
}
_STUDENT_PART = 0.1


@dataclass(frozen=True, slots=True)
class Shape:
    """``engine``: what stands in the model's place, or None for vLLM's engine as the laptop profile
    has it."""

    gateways: int
    replicas: int
    interval_ms: float | None = 10.0


@dataclass(frozen=True, slots=True)
class Live:
    """A platform that answers. ``keys``: each tenant's; ``operator``: the admin API's."""

    url: str
    keys: Mapping[str, str]
    internal: str
    operator: str
    started: Started
    settings: Settings
    state: Path

    def process(self, part: str) -> psutil.Process:
        """``Redis`` or another part, as the supervisor has it now."""
        parts = json.loads((self.state / "platform.json").read_text("utf-8"))["parts"]
        return psutil.Process(int(parts[part]["pid"]))

    def database(self) -> Engine:
        """The ledger's."""
        return open_database(database_url(self.settings.database, {}, self.state))


def tree_of(
    workload: EngineWorkload, shape: Shape, tenants: Sequence[Mapping[str, Any]], operator: str
) -> Settings:
    """The laptop profile with several gateways; the student is the same model under another
    name."""
    tree = load_settings(PROFILE).model_dump(mode="json")
    base = tree["models"][0]
    engine = base["engine"]
    if shape.interval_ms is not None:
        engine = {"mode": "stub", "args": {"interval_ms": shape.interval_ms}}
    own = {"source": str(workload.model), "engine": engine, "num_cpus": 0.1}
    price = {"replica_usd_per_hour": REPLICA_USD_PER_HOUR}
    cheap = {name: usd * _STUDENT_PART for name, usd in _USD_PER_MILLION.items()}
    # The stub's log-probabilities are all the same, and below this: every cascade goes on to the
    # model, and what the student had said is paid for, too.
    cascade = {"enabled": False, "first_tokens": 4, "threshold": -0.1}
    fallback = {"student": STUDENT, "cascade": cascade}
    tree["models"] = [
        {
            **base,
            **own,
            "name": MODEL,
            "replicas": shape.replicas,
            "price": {**price, **_USD_PER_MILLION},
            "fallback": fallback,
        },
        {
            **base,
            **own,
            "name": STUDENT,
            "replicas": 1,
            "price": {**price, **cheap},
            "fallback": None,
        },
    ]
    port = free_port()
    tree["server"] |= {"host": "127.0.0.1", "port": port}
    tree["server"]["admin"] |= {"key_sha256": [hash_key(operator)]}
    tree["gateway"] |= {"replicas": shape.gateways}
    tree["redis"] |= {"port": free_port()}
    tree["features"] = {"enabled": False}
    tree["tenants"] = list(tenants)
    return parse_settings(tree, "the bench's settings")


@contextlib.contextmanager
def running(
    workload: EngineWorkload,
    shape: Shape,
    tenants: Mapping[str, Mapping[str, Any]],
    keep_logs: Path | None = None,
) -> Iterator[Live]:
    """Start it, and end it with all its processes. ``tenants``: what is said of each, by its id.

    Raises:
        StartError: it did not come up.
    """
    keys = {tenant: new_key() for tenant in tenants}
    operator = new_key()
    told = [{"id": t, "key_sha256": [hash_key(keys[t])], **more} for t, more in tenants.items()]
    settings = tree_of(workload, shape, told, operator)
    port = settings.server.port
    internal = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="wm-") as folder:
        state = write_state(settings, Keys(next(iter(keys.values())), internal), Path(folder))
        command = [sys.executable, "-P", "-m", MODULE, "--settings", str(state / "settings.yaml")]
        launch = Launch(
            "weir",
            [*command, "--state", str(state)],
            # /ready answers as soon as one model does; the supervisor waits for every replica.
            lambda: (state / "platform.json").is_file() and http_ready(port, "/ready")(),
            {"WEIR_INTERNAL_TOKEN": internal},
            stop_timeout_s=60,
        )
        with start([launch], Target("127.0.0.1", port), keep_logs) as started:
            url = f"http://127.0.0.1:{port}"
            yield Live(url, keys, internal, operator, started, settings, state)
