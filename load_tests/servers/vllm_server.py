"""vLLM's own OpenAI server, in its default mode and in that of weir's replica."""

from __future__ import annotations

import sys

from load_tests.loadgen import Target
from load_tests.servers.process import Launch, free_port, http_ready
from load_tests.servers.workload import EngineWorkload


def vllm_server(workload: EngineWorkload, in_process: bool) -> tuple[list[Launch], Target]:
    """``in_process``: engine core within the server's process tree, without its own process
    manager (``VLLM_ENABLE_V1_MULTIPROCESSING=0``). Everything else as vLLM has it, except that
    requests are not logged by the engine, which is its default too."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        # The console script looks up the distribution "vllm", which the CPU build does not have.
        "vllm.entrypoints.openai.api_server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--model",
        str(workload.model),
        "--served-model-name",
        workload.served_name,
        *workload.command_line(),
    ]
    env = dict(workload.env)
    if in_process:
        env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    launch = Launch("vllm", command, http_ready(port), env)
    return [launch], Target("127.0.0.1", port)
