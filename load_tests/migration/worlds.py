"""The two platforms that lose replicas, and the questions that they are asked."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load_tests.loadgen import Target, chat_bodies, prompt_texts
from load_tests.migration.load import Question
from load_tests.servers import EngineWorkload, Launch
from load_tests.servers.weir_platform import weir_gateway, weir_platform
from load_tests.servers.workload import PROFILE
from weir.settings import load_settings

PROMPT_TOKENS = 60
# At most 60 + 400 tokens each, with room for blocks that are not full.
_KV_BYTES_PER_STREAM = 2 * 2**20
#: A word of each stream of the stub engine so often: 1,000 streams make 10,000 words a second.
STUB_INTERVAL_MS = 100.0


@dataclass(frozen=True, slots=True)
class World:
    """``key`` is its name on the command line. ``launch`` gets a folder for its state."""

    key: str
    title: str
    replicas: int
    streams: int
    launch: Callable[[Path], tuple[list[Launch], Target]]


def all_worlds(workload: EngineWorkload, quick: bool) -> tuple[World, ...]:
    """Two replicas of the real engine; four of the stub engine."""
    real, stub = (60, 200) if quick else (200, 1000)
    return (
        World(
            "real",
            f"{real} streams over two vLLM replicas",
            2,
            real,
            lambda at: weir_platform(workload, 2, at, engine=_engine_with_room(real)),
        ),
        World(
            "stub",
            f"{stub:,} streams over four replicas of the stub engine",
            4,
            stub,
            lambda at: weir_gateway(workload, STUB_INTERVAL_MS, at, replicas=4),
        ),
    )


def _engine_with_room(streams: int) -> Mapping[str, Any]:
    """The laptop profile's engine, but one replica can hold all streams: they are open when a fault
    comes, and go on when only one replica is left. With the profile's 64 places, those beyond would
    wait at the gate, and what is measured would be overload."""
    engine = load_settings(PROFILE).models[0].model_dump(mode="json")["engine"]
    room = {"max_num_seqs": streams, "kv_cache_memory_bytes": streams * _KV_BYTES_PER_STREAM}
    return {**engine, "args": {**engine["args"], **room}}


def questions(
    workload: EngineWorkload, target: Target, count: int, tokens: tuple[int, int], seed: int
) -> Sequence[Question]:
    """``count`` distinct prompts, each with a length of its own between the two of ``tokens``."""
    rng = random.Random(seed)
    texts = prompt_texts(seed, count, PROMPT_TOKENS, workload.token_counter())
    lengths = [rng.randint(*tokens) for _ in texts]
    return [
        Question(target.request(chat_bodies(workload.served_name, [text], length)[0]), length)
        for text, length in zip(texts, lengths, strict=True)
    ]
