"""Two real replicas behind the real platform: as a pair of halves, or as two equal ones.

Every row has the same number of replicas, and on a machine with as many cores each replica has one
for itself alone (all threads of its processes are bound to it), so that a row is not faster because
one replica takes the other one's core. Gateway and clients run where the system puts them.

Three things are measured on each fleet, one after the other, with prompts that nobody has cached:

- answers: greedy ones to prompts of several lengths, compared with those of the first fleet;
- first tokens: of long prompts, alone on the fleet;
- gaps: between the outputs of streams that decode all the time, while long prompts arrive beside
  them at fixed times, so often that more than a hundredth of a mixed replica's gaps are theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from load_tests.loadgen import Target, chat_bodies
from load_tests.loadgen.prompts import prompt_texts
from load_tests.migration.replicas import Fleet
from load_tests.report.stats import percentile
from load_tests.servers import EngineWorkload, Launch, StartError, start
from load_tests.servers.first_answer import await_answer
from load_tests.servers.weir_platform import weir_platform

LONG_TOKENS = 1500
#: The target that decisions are for, as in the simulator's faster traffic.
TPOT_TARGET_MS = 25.0
_LENGTHS = (20, 120, 400, 900, LONG_TOKENS)
_PATIENCE_S = 240.0
_QUERIES = "vllm:external_prefix_cache_queries_total"
_HITS = "vllm:external_prefix_cache_hits_total"
_COUNTERS = ("weir_handoffs_total", _QUERIES, _HITS)
_REPLICA = re.compile(r'replica="([^"]*)"')


@dataclass(frozen=True, slots=True)
class LiveFleet:
    """``pools`` as in the settings; ``rule`` decides whether to disaggregate, ``policy`` which
    replica takes a request."""

    name: str
    pools: Sequence[Mapping[str, Any]]
    rule: str
    policy: str = "weir"

    @property
    def replicas(self) -> int:
        """Of all pools."""
        return sum(pool.get("replicas", 1) for pool in self.pools)


_HALVES = ({"name": "p", "role": "prefill"}, {"name": "d", "role": "decode"})
MIXED = "2 mixed"
SPLIT = "1 prefill + 1 decode"
LIVE_FLEETS = (
    LiveFleet(MIXED, ({"name": "m", "role": "mixed", "replicas": 2},), "never"),
    LiveFleet(SPLIT, _HALVES, "always"),
    LiveFleet("1 prefill + 1 decode, adaptive", _HALVES, "adaptive"),
    # As engines stand behind an ordinary load balancer.
    LiveFleet(
        "2 mixed, round-robin",
        ({"name": "m", "role": "mixed", "replicas": 2, "engine": {"yielding": False}},),
        "never",
        "round-robin",
    ),
)


@dataclass(frozen=True, slots=True)
class LivePlan:
    """``window_s``: so long gaps are measured, beside a long prompt every ``every_s``."""

    window_s: float
    answers: int
    first_tokens: int
    streams: int = 4
    every_s: float = 0.2


@dataclass(slots=True)
class Heard:
    """One answer: its text, and when each of its outputs came (seconds since it was asked for)."""

    text: str = ""
    at_s: list[float] = field(default_factory=list)
    prefilled_elsewhere: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """``bound``: each of the ``replicas`` has a core for itself alone."""

    replicas: int
    bound: bool


@dataclass(frozen=True, slots=True)
class Live:
    """What was measured on one fleet. ``counters``: of the whole run."""

    fleet: LiveFleet
    answers: Sequence[str]
    first_s: Sequence[float]
    gaps_s: Sequence[float]
    long_first_s: Sequence[float]
    counters: Mapping[str, float]
    errors: Sequence[str]
    placed: Placed

    def row(self, reference: Live) -> dict[str, Any]:
        """The figures; ``reference``: whose answers are right."""
        pairs = list(zip(self.answers, reference.answers, strict=True))
        return {
            "system": self.fleet.name,
            "rule": self.fleet.rule,
            "replicas": self.placed.replicas,
            "cores_per_replica": 1 if self.placed.bound else None,
            "answers_identical_ratio": sum(a == b for a, b in pairs) / len(pairs),
            "ttft_alone_p50_ms": _ms(percentile(self.first_s, 50)),
            "added_ttft_p50_ms": _difference_ms(self.first_s, reference.first_s),
            "itl_p50_ms": _ms(percentile(self.gaps_s, 50)),
            "itl_p99_ms": _ms(percentile(self.gaps_s, 99)),
            "gaps_within_target_ratio": _share_within(self.gaps_s, TPOT_TARGET_MS / 1e3),
            "ttft_beside_streams_p50_ms": _ms(percentile(self.long_first_s, 50)),
            "long_prompts": len(self.long_first_s),
            "prompts_handed_over": self.counters.get("weir_handoffs_total taken", 0.0),
            "prompt_tokens_not_computed_again_ratio": _taken_share(self.counters),
            "errors": len(self.errors),
        }


def measure_live(
    fleet: LiveFleet, workload: EngineWorkload, plan: LivePlan, seed: int, keep_logs: Path | None
) -> Live:
    """Start the platform with that fleet, measure, and stop it.

    Raises:
        StartError: it does not come up.
        Unavailable: this checkout has no platform.
    """
    routing = {"policy": fleet.policy, "disaggregation": {"rule": fleet.rule}}
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        launches, target = weir_platform(
            workload,
            1,
            Path(folder),
            targets={"tpot_slo_ms": TPOT_TARGET_MS},
            pools=[dict(p) for p in fleet.pools],
            routing=routing,
        )
        with start(launches, target, keep_logs) as started:
            body = chat_bodies(workload.served_name, ["hello"], 2)[0]
            await_answer(target, body, _PATIENCE_S)
            token = _token(launches)
            replicas = Fleet(target, workload.served_name, token, started)
            placed = asyncio.run(_bind(replicas, fleet.replicas))
            run = _Run(target, workload, plan, seed, token)
            return asyncio.run(run.all(fleet, placed))


async def _bind(replicas: Fleet, count: int) -> Placed:
    """Give each replica a core, where there are as many, when all of them are up."""
    give_up_s = time.monotonic() + _PATIENCE_S
    async with aiohttp.ClientSession() as http:
        while len(replicas.up) < count:
            if time.monotonic() > give_up_s:
                raise StartError(f"{len(replicas.up)} of {count} replicas are up", "")
            await asyncio.sleep(0.5)
            await replicas.ask(http)
    cores, up = sorted(os.sched_getaffinity(0)), replicas.up
    if len(cores) < len(up):
        return Placed(len(up), False)
    for core, replica_id in zip(cores, sorted(up), strict=False):
        for process in replicas.families[replica_id]:
            for thread in process.threads():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(thread.id, {core})
    return Placed(len(up), True)


def _token(launches: Sequence[Launch]) -> str:
    return str(launches[0].env["WEIR_INTERNAL_TOKEN"])


class _Run:
    """One fleet under load."""

    def __init__(
        self, target: Target, workload: EngineWorkload, plan: LivePlan, seed: int, token: str
    ) -> None:
        self._target = target
        self._workload = workload
        self._plan = plan
        self._count_tokens = workload.token_counter()
        self._seeds = itertools.count(seed * 1000)
        self._token = token
        self._errors: list[str] = []

    async def all(self, fleet: LiveFleet, placed: Placed) -> Live:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as http:
            for body in self._bodies(8, LONG_TOKENS, 2):  # engines connect to each other
                await self._ask(http, body)
            answers = [await self._ask(http, body) for body in self._answer_bodies()]
            long = self._bodies(self._plan.first_tokens, LONG_TOKENS, 2)
            firsts = [await self._ask(http, body) for body in long]
            gaps, beside = await self._gaps(http)
            counters = await self._counters(http)
        return Live(
            fleet,
            [heard.text for heard in answers],
            _firsts(firsts),
            gaps,
            _firsts(beside),
            counters,
            self._errors,
            placed,
        )

    def _answer_bodies(self) -> list[bytes]:
        each = max(1, self._plan.answers // len(_LENGTHS))
        return [body for tokens in _LENGTHS for body in self._bodies(each, tokens, 32)]

    def _bodies(self, count: int, tokens: int, output: int) -> list[bytes]:
        texts = prompt_texts(next(self._seeds), count, tokens, self._count_tokens)
        return chat_bodies(self._workload.served_name, texts, output)

    async def _gaps(self, http: aiohttp.ClientSession) -> tuple[list[float], list[Heard]]:
        """Gaps of the streams that decode, and the answers to the long prompts beside them."""
        plan = self._plan
        count = int(plan.window_s / plan.every_s)
        long = self._bodies(count, LONG_TOKENS, 2)
        short = itertools.cycle(self._bodies(64, 16, 400))
        clock = asyncio.get_running_loop().time
        over_s = clock() + 1.0 + plan.window_s
        gaps: list[float] = []

        async def decode() -> None:
            while clock() < over_s:
                heard = await self._ask(http, next(short), lambda: clock() < over_s)
                gaps.extend(b - a for a, b in itertools.pairwise(heard.at_s))

        streams = [asyncio.create_task(decode()) for _ in range(plan.streams)]
        await asyncio.sleep(1.0)
        gaps.clear()
        asked = []
        for body in long:
            asked.append(asyncio.create_task(self._ask(http, body)))
            await asyncio.sleep(plan.every_s)
        await asyncio.gather(*streams)
        return gaps, list(await asyncio.gather(*asked))

    async def _ask(
        self, http: aiohttp.ClientSession, body: bytes, wanted: Callable[[], bool] = lambda: True
    ) -> Heard:
        """An answer, or as much of it as is wanted."""
        heard, asked_s = Heard(), time.monotonic()
        url = f"http://{self._target.host}:{self._target.port}{self._target.path}"
        headers = {"Content-Type": "application/json", **dict(self._target.headers)}
        async with http.post(url, data=body, headers=headers) as answer:
            if answer.status != 200:
                self._errors.append(f"{answer.status}: {(await answer.text())[:200]}")
                return heard
            heard.prefilled_elsewhere = "x-weir-prefill-replica" in answer.headers
            async for line in answer.content:
                if text := _delta(line):
                    heard.text += text
                    heard.at_s.append(time.monotonic() - asked_s)
                if not wanted():
                    answer.close()
                    break
        return heard

    async def _counters(self, http: aiohttp.ClientSession) -> Mapping[str, float]:
        url = f"http://{self._target.host}:{self._target.port}/metrics"
        found: dict[str, float] = {}
        async with http.get(url, headers={"Authorization": f"Bearer {self._token}"}) as page:
            page.raise_for_status()
            for line in (await page.text()).splitlines():
                name, _, labels = line.partition("{")
                if name in _COUNTERS:
                    key = f"{name} taken" if 'outcome="taken"' in labels else name
                    if replica := _REPLICA.match(labels):
                        key = f"{name} {replica[1]}"
                    found[key] = found.get(key, 0.0) + float(line.rpartition(" ")[2])
        return found


def _share_within(gaps_s: Sequence[float], target_s: float) -> float | None:
    return sum(gap_s <= target_s for gap_s in gaps_s) / len(gaps_s) if gaps_s else None


def _taken_share(counters: Mapping[str, float]) -> float | None:
    """Of the prompt tokens that replicas asked others for, those that came. A replica that computes
    prompts for others asks too, and never gets any: it does not count."""
    asked = hits = 0.0
    for key, taken in counters.items():
        name, _, replica = key.partition(" ")
        if name == _HITS and taken:
            hits += taken
            asked += counters.get(f"{_QUERIES} {replica}", 0.0)
    return hits / asked if asked else None


def _delta(line: bytes) -> str:
    if not line.startswith(b"data: {"):
        return ""
    choices = json.loads(line[6:]).get("choices") or [{}]
    return str((choices[0].get("delta") or {}).get("content") or "")


def _firsts(answers: Sequence[Heard]) -> list[float]:
    return [heard.at_s[0] for heard in answers if heard.at_s]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _difference_ms(mine: Sequence[float], reference: Sequence[float]) -> float | None:
    first, second = percentile(mine, 50), percentile(reference, 50)
    return None if first is None or second is None else (first - second) * 1e3
