"""Whether generation in batch hurts online traffic: interactive TTFT with and without it.

The whole platform with two replicas of the teacher and admission on, one machine. Interactive
requests come by a Poisson process, whatever becomes of those before them, with about 100 prompt
tokens (all distinct) and 32 output tokens. In turn: nothing else runs; generation runs through the
platform at batch priority, as ``weir features generate --through`` asks for it; the same at
interactive priority, for contrast. Rounds are interleaved, ratios are taken within a round. The
generator of both loads is this process, on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import datetime as dt
import json
import random
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from deployments.batch import PlatformWriter, PlatformWriters
from features.desk_data import DataFolder, DeskDataSpec, write_desk_data
from features.generation import BUILTIN_TEMPLATES, Histories, Prompt, head_entities
from features.generation.output import TONES
from load_tests.loadgen import Target, chat_bodies, prompt_texts
from load_tests.report import Mark, Report, absent_row, bench_parser, emit, interleave, median
from load_tests.report.stats import percentile
from load_tests.servers import (
    EngineWorkload,
    StartError,
    Unavailable,
    engine_workload,
    start,
    unwind_on_sigterm,
)
from load_tests.servers.process import Launch, free_port, http_ready
from load_tests.servers.weir_platform import Keys, authorization, platform_settings, write_state
from weir.settings import parse_settings
from weir.tenancy import new_key

ALONE, BATCH, CONTRAST = "interactive alone", "and generation, batch", "and generation, interactive"
SYSTEMS = (ALONE, BATCH, CONTRAST)
CLASSES = {BATCH: "batch", CONTRAST: "interactive"}
_PROMPT_TOKENS, _OUTPUT_TOKENS = 100, 32
NOTES = (
    "interactive alone already shares its cores with the load generator",
    "on a CPU an engine's step is as long as its batch: batch work that runs is felt whatever its "
    "priority; priority decides what waits",
)


@dataclass(slots=True)
class Seen:
    """One system in one round."""

    ttft_ms: list[float] = field(default_factory=list)
    errors: int = 0
    generated: int = 0
    seconds: float = 0.0


class Online:
    """Poisson arrivals of streamed requests."""

    def __init__(self, client: httpx.AsyncClient, bodies: Sequence[bytes], rate: float) -> None:
        self._client, self._bodies, self._rate = client, bodies, rate
        self._next = 0

    async def run(self, seconds: float, seed: str, seen: Seen) -> None:
        """Send for that long; wait for all answers."""
        rng = random.Random(seed)
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            while (now := time.monotonic()) < end:
                tasks.create_task(self._one(seen))
                await asyncio.sleep(min(rng.expovariate(self._rate), max(0.0, end - now)))

    async def _one(self, seen: Seen) -> None:
        body = self._bodies[self._next % len(self._bodies)]
        self._next += 1
        sent = time.monotonic()
        headers = {"content-type": "application/json", "x-weir-priority": "interactive"}
        request = self._client.stream("POST", "/v1/chat/completions", content=body, headers=headers)
        with contextlib.suppress(httpx.HTTPError):
            async with request as response:
                lines = response.aiter_lines()
                if response.status_code == 200 and await _first_text(lines):
                    seen.ttft_ms.append((time.monotonic() - sent) * 1000)
                    async for _ in lines:
                        pass
                    return
        seen.errors += 1


async def _first_text(lines: AsyncIterator[str]) -> bool:
    async for line in lines:
        if line.startswith("data: {"):
            choices = json.loads(line[6:])["choices"]
            if choices and choices[0]["delta"].get("content"):
                return True
    return False


async def generate_until_cancelled(
    writers: PlatformWriters, prompts: Sequence[Prompt], seen: Seen
) -> None:
    """Keep the writer's own number of requests in flight."""

    def done(_: int, __: object) -> None:
        seen.generated += 1

    while True:
        await PlatformWriter(writers).write_async(prompts, done)


def generation_prompts(folder: Path, seed: int) -> list[Prompt]:
    """Prompts as the generator makes them, for the most popular customers."""
    data = DataFolder(folder)
    write_desk_data(DeskDataSpec(dt.date(2026, 1, 31), seed=seed, customers=1_000), data)
    entities = head_entities(data, 512)
    histories = Histories(data, entities)
    found = (histories.history(entity) for entity in entities)
    return [BUILTIN_TEMPLATES["desk"].prompt(each, TONES) for each in found if each]


def platform_with_admission(
    workload: EngineWorkload, keys: Keys, folder: Path
) -> tuple[Launch, Target]:
    """The laptop's platform, with two replicas and the queue in front of them."""
    port = free_port()
    settings = platform_settings(workload, {"replicas": 2}, port, keys)
    tree = settings.model_dump(mode="json")
    tree["admission"] = {**tree["admission"], "enabled": True}
    state = write_state(parse_settings(tree, "the bench's settings"), keys, folder)
    command = [sys.executable, "-P", "-m", "deployments.platform"]
    command += ["--settings", str(state / "settings.yaml"), "--state", str(state)]
    env = {"WEIR_INTERNAL_TOKEN": keys.internal}
    ready = http_ready(port, "/ready")
    launch = Launch("weir", command, ready, env, stop_timeout_s=60)
    return launch, Target("127.0.0.1", port, headers=(authorization(keys),))


async def rounds(
    options: argparse.Namespace, url: str, key: str, bodies: Sequence[bytes], prompts: list[Prompt]
) -> dict[str, list[Seen]]:
    """All systems in all rounds."""
    found: dict[str, list[Seen]] = {name: [] for name in SYSTEMS}
    headers = {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=60, limits=limits
    ) as client:
        online = Online(client, bodies, options.rate)
        await online.run(options.seconds / 2, "warm-up", Seen())
        for number, name in interleave(SYSTEMS, options.rounds):
            seen = Seen()
            begin = time.monotonic()
            writers = PlatformWriters(url, key, "bench", "", options.concurrency)
            batch = None
            if name in CLASSES:
                writers = dataclasses.replace(writers, priority_class=CLASSES[name])
                batch = asyncio.create_task(generate_until_cancelled(writers, prompts, seen))
                await asyncio.sleep(1.0)
            await online.run(options.seconds, f"{options.seed}/{number}", seen)
            seen.seconds = time.monotonic() - begin
            if batch is not None:
                batch.cancel()
                await asyncio.wait([batch])
            found[name].append(seen)
            print(f"round {number + 1}, {name}: {_line(seen)}", file=sys.stderr, flush=True)
    return found


def _line(seen: Seen) -> str:
    p99 = percentile(seen.ttft_ms, 99)
    shown = "–" if p99 is None else f"{p99:.0f} ms"
    return f"TTFT p99 {shown}, {len(seen.ttft_ms)} requests, {seen.generated} generated"


def row(name: str, rounds_seen: Sequence[Seen]) -> dict[str, Any]:
    """Medians over rounds; the p99 also of all rounds together."""
    every = [ttft for seen in rounds_seen for ttft in seen.ttft_ms]
    per_s = [seen.generated / seen.seconds for seen in rounds_seen if seen.seconds]
    return {
        "system": name,
        "ttft_ms_p50": median([percentile(seen.ttft_ms, 50) or 0.0 for seen in rounds_seen]),
        "ttft_ms_p99": median([percentile(seen.ttft_ms, 99) or 0.0 for seen in rounds_seen]),
        "ttft_ms_p99_all_rounds": percentile(every, 99),
        "requests": len(every),
        "errors": sum(seen.errors for seen in rounds_seen),
        "generated_per_s": median(per_s),
    }


def marks(found: dict[str, list[Seen]]) -> list[Mark]:
    """The issue's "never hurts online traffic", put into numbers as the priority bench has it."""
    ratios = {
        name: median(
            [
                (percentile(with_it.ttft_ms, 99) or 0.0) / (percentile(alone.ttft_ms, 99) or 1.0)
                for alone, with_it in zip(found[ALONE], found[name], strict=True)
            ]
        )
        for name in (BATCH, CONTRAST)
    }
    saved = (ratios[CONTRAST] or 0.0) / (ratios[BATCH] or 1.0)
    target = "interactive TTFT p99, generation at batch priority over alone"
    return [
        Mark(target, ratios[BATCH], "ratio", 1.2, "lower"),
        Mark("what batch priority saves of it", saved, "ratio", 1.0, "higher"),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks."""
    parser = bench_parser("generation", __doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each system in a round")
    parser.add_argument("--rate", type=float, default=8.0, help="interactive requests per s")
    parser.add_argument("--concurrency", type=int, default=8, help="of the generation")
    parser.add_argument("--keep-logs", type=Path, metavar="DIR")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.seconds = 1, 4.0
    unwind_on_sigterm()
    work = engine_workload(None)
    texts = prompt_texts(options.seed, 512, _PROMPT_TOKENS, work.token_counter())
    bodies = chat_bodies(work.served_name, texts, _OUTPUT_TOKENS)
    try:
        with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
            prompts = generation_prompts(Path(folder) / "data", options.seed)
            keys = Keys(new_key(), secrets.token_urlsafe(24))
            launch, target = platform_with_admission(work, keys, Path(folder))
            with start([launch], target, options.keep_logs):
                url = f"http://{target.host}:{target.port}"
                found = asyncio.run(rounds(options, url, keys.tenant, bodies, prompts))
    except (StartError, Unavailable) as error:
        print(getattr(error, "log_tail", ""), file=sys.stderr)
        reason = str(error)
        absent = [absent_row(name, reason) for name in SYSTEMS]
        missing = Mark("interactive TTFT p99", None, "ratio", 1.2, "lower", reason)
        return emit(Report("generation", options.seed, absent, [missing]), options, argv)
    report = [row(name, seen) for name, seen in found.items()]
    return emit(Report("generation", options.seed, report, marks(found), NOTES), options, argv)


if __name__ == "__main__":
    sys.exit(main())
