"""A replica whose engine is there and does nothing says so, so that Serve replaces it."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.engine

_SCRIPT = """
import asyncio, json, os, signal, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from deployments.engine import EngineChild
from deployments.probes import EngineFrozenError, refuse_if_frozen

async def main(model):
    config = AsyncEngineArgs(
        model=model, dtype="float32", max_model_len=256, block_size=32, max_num_seqs=4,
        kv_cache_memory_bytes=16 << 20, enforce_eager=True, distributed_executor_backend="uni",
    ).create_engine_config()
    child = EngineChild(config, lambda code: None)
    child.start()
    client, _, _ = generator_of(config, child)

    async def frozen(within_s):
        try:
            await refuse_if_frozen(client, within_s)
        except EngineFrozenError:
            return True
        return False

    said = [await frozen(60.0)]
    os.kill(child.pid, signal.SIGSTOP)
    said.append(await frozen(0.5))
    os.kill(child.pid, signal.SIGCONT)
    said.append(await frozen(60.0))
    child.stop()
    print("RESULT" + json.dumps({"frozen": said}), flush=True)
    os._exit(0)

asyncio.run(main(sys.argv[1]))
"""


def test_an_engine_that_stands_still_is_found_out(with_teacher: Any) -> None:
    assert with_teacher(_SCRIPT)["frozen"] == [False, True, False]
