"""The platform that the clients talk to: one of our own, or one that runs already."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from load_tests.loadgen import chat_bodies
from load_tests.servers import engine_workload, start
from load_tests.servers.first_answer import await_answer
from load_tests.servers.weir_platform import weir_platform

MODEL = "weir-teacher"
FIRST_ANSWER_S = 120.0
# The prompts of coding agents are longer than the sample model's 2,048 tokens. Its answers mean
# nothing at such positions, which is no matter here: what is tried is the way there and back.
LONG_CONTEXT_TOKENS = 131_072


@dataclass(frozen=True, slots=True)
class Platform:
    """``url`` has no path. ``metrics_key`` may read /metrics; empty: nobody told us one."""

    url: str
    key: str
    model: str
    metrics_key: str = ""

    def environment(self) -> dict[str, str]:
        """How probes are told about it."""
        return {
            "WEIR_URL": self.url,
            "WEIR_KEY": self.key,
            "WEIR_MODEL": self.model,
            "WEIR_METRICS_KEY": self.metrics_key,
        }


@contextlib.contextmanager
def own_platform(long_context: bool = False, keep_logs: Path | None = None) -> Iterator[Platform]:
    """The laptop profile on free ports, with all its processes gone at the end.

    ``long_context``: one replica whose engine is told of a longer context than the model has.

    Raises:
        StartError: it did not come up.
        Unavailable: there is no sample model in this checkout.
    """
    workload = replace(engine_workload(None), served_name=MODEL)
    changes = long_engine(workload.args, workload.env) if long_context else {}
    replicas = 1 if long_context else 2
    with tempfile.TemporaryDirectory(prefix="weir-clients-") as folder:
        launches, target = weir_platform(workload, replicas, Path(folder), **changes)
        key = target.headers[0][1].removeprefix("Bearer ")
        internal = launches[0].env["WEIR_INTERNAL_TOKEN"]
        with start(launches, target, keep_logs):
            await_answer(target, chat_bodies(MODEL, ["hello"], 2)[0], FIRST_ANSWER_S)
            url = f"http://{target.host}:{target.port}"
            yield Platform(url, key, MODEL, internal)


def long_engine(args: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    """The changes to the model's settings for ``long_context``."""
    longer = {
        "max_model_len": LONG_CONTEXT_TOKENS,
        "hf_overrides": {"max_position_embeddings": LONG_CONTEXT_TOKENS},
        "kv_cache_memory_bytes": 2**30,
    }
    engine = {"mode": "forked", "args": {**args, **longer}, "env": dict(env)}
    return {"engine": engine}
