"""The gateways that stand alone before an upstream that only emits chunks."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from load_tests.loadgen import Target
from load_tests.servers.process import REPOSITORY, Launch, Unavailable, free_port, http_ready
from load_tests.servers.workload import SERVED_NAME

PEERS_PYTHON = REPOSITORY / ".cache" / "peers-venv" / "bin" / "python"


def upstream(interval_ms: float) -> tuple[Launch, int]:
    """The chunk upstream and its port."""
    port = free_port()
    command = [sys.executable, "-m", "load_tests.servers.chunk_upstream", "--port", str(port)]
    command += ["--interval-ms", str(interval_ms), "--model", SERVED_NAME]
    return Launch("upstream", command, http_ready(port)), port


def nothing(interval_ms: float) -> tuple[list[Launch], Target]:
    """The upstream itself: what is left for a gateway to lose."""
    launch, port = upstream(interval_ms)
    return [launch], Target("127.0.0.1", port)


def relay(interval_ms: float) -> tuple[list[Launch], Target]:
    """The plain ASGI relay."""
    below, below_port = upstream(interval_ms)
    port = free_port()
    command = [sys.executable, "-m", "load_tests.servers.relay", "--port", str(port)]
    command += ["--upstream", f"http://127.0.0.1:{below_port}"]
    launch = Launch("relay", command, http_ready(port))
    return [below, launch], Target("127.0.0.1", port)


def sglang_router(interval_ms: float, python: Path | None) -> tuple[list[Launch], Target]:
    """SGLang's router (Rust) with its default policy, cache_aware."""
    peers = peers_python(python, "sglang_router")
    below, below_port = upstream(interval_ms)
    launch, target = sglang_before(peers, [f"http://127.0.0.1:{below_port}"], "cache_aware")
    return [below, launch], target


def sglang_before(python: Path, workers: Sequence[str], policy: str) -> tuple[Launch, Target]:
    """SGLang's router before servers that run already, by their URLs."""
    port, metrics_port = free_port(), free_port()
    command = [str(python), "-m", "sglang_router.launch_router", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--worker-urls", *workers]
    command += ["--policy", policy, "--prometheus-port", str(metrics_port)]
    command += ["--prometheus-host", "127.0.0.1"]
    launch = Launch("sglang-router", command, http_ready(port, "/readiness"))
    return launch, Target("127.0.0.1", port)


def litellm(interval_ms: float, python: Path | None, folder: Path) -> tuple[list[Launch], Target]:
    """LiteLLM's proxy, one worker, no database, no callbacks, one model."""
    peers = peers_python(python, "litellm")
    below, below_port = upstream(interval_ms)
    port = free_port()
    to = {
        "model": f"openai/{SERVED_NAME}",
        "api_base": f"http://127.0.0.1:{below_port}/v1",
        "api_key": "none",
    }
    config = {"model_list": [{"model_name": SERVED_NAME, "litellm_params": to}]}
    file = folder / "litellm.yaml"
    file.write_text(json.dumps(config), "utf-8")
    command = [str(peers.with_name("litellm")), "--config", str(file)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    # Without this it tries to download its price list before it starts.
    key = f"sk-{secrets.token_hex(16)}"
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": key}
    launch = Launch("litellm", command, http_ready(port, "/health/liveliness"), env)
    header = ("Authorization", f"Bearer {key}")
    return [below, launch], Target("127.0.0.1", port, headers=(header,))


def peers_python(given: Path | None, module: str) -> Path:
    """The Python of the environment that has the peers.

    Raises:
        Unavailable: it, or the module in it, is not there.
    """
    python = given or PEERS_PYTHON
    hint = "install it with: python -m load_tests.servers.install_peers"
    if not python.is_file():
        raise Unavailable(f"no peers' environment at {python.parent.parent}; {hint}")
    sites = python.parent.parent.glob(f"lib/python*/site-packages/{module}")
    if not any(sites):
        raise Unavailable(f"{module} is not in the peers' environment; {hint}")
    return python
