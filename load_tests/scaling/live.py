"""One model from no replica to one, two, through a notice of interruption, and back to one."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis

from deployments.autoscaling import TARGETS, decided
from deployments.gateway.demand import REPORTS
from load_tests.scaling.streams import Asked, Ended, Streams, failed
from weir.autoscaling.telling import unpack

MODEL = "scaled"
_PATIENCE_S = 120.0
_WARM_S = 5.0
#: A limit on TPOT that an engine on a core or two keeps with a hundred answers at a time.
_CLASSES = {"standard": {"urgency": 0, "ttft_slo_ms": 10_000.0, "tpot_slo_ms": 400.0}}


@dataclass(frozen=True, slots=True)
class Course:
    """What is run. ``tokens``: of a long answer."""

    streams: int = 100
    tokens: int = 900
    clients: int = 24
    short_tokens: int = 64


@dataclass(frozen=True, slots=True)
class Step:
    """One step. ``took_s``: from its cause to the number of replicas that was waited for."""

    name: str
    took_s: float | None
    ended: Sequence[Ended]
    moved: int = 0
    in_time: bool = True

    def row(self) -> dict[str, Any]:
        """As the report has it."""
        wrong = failed(self.ended)
        return {
            "system": "weir",
            "step": self.name,
            "took_s": self.took_s,
            "requests": len(self.ended),
            "failed": len(wrong),
            "moved": self.moved,
            "longest_gap_s": max((each.gap_s for each in self.ended), default=0.0),
            "while_streams_ran": self.in_time,
            "first_failure": wrong[0] if wrong else "",
        }


def settings_of(engine: Mapping[str, Any], notice: Path, ports: Mapping[str, Any]) -> Any:
    """A spot pool, which is cheaper and hears notices from a file, and one beside it."""

    def pool(name: str, usd: float, **more: Any) -> dict[str, Any]:
        capacity = engine["capacity"]
        bounds = {"min_replicas": 0, "max_replicas": 1, "capacity": capacity}
        price = {"replica_usd_per_hour": usd}
        return {"name": name, "replicas": 0, "autoscaling": bounds, "price": price, **more}

    notices = {"source": "file", "file": str(notice), "period_s": 0.5}
    model = {
        "name": MODEL,
        "source": "builtin:teacher",
        "num_cpus": 0.5,
        "engine": engine["engine"],
        "fallback": None,
        "pools": [pool("spot", 0.4, market="spot", notices=notices), pool("steady", 1.0)],
    }
    params = {"down_after_s": 6.0, "keep": 0.0, "drain_s": 20.0}
    return {
        **ports,
        "models": [model],
        "autoscaling": {"period_s": 1.0, "params": params, "hold_s": 200.0},
        "features": {"enabled": False},
        "admission": {"classes": _CLASSES},
    }


@dataclass(slots=True)
class Live:
    """A platform under way. ``notice``: the file that is the notice."""

    url: str
    key: str
    admin_key: str
    internal_token: str
    notice: Path
    redis_port: int
    course: Course
    steps: list[Step] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)

    async def run(self) -> list[Step]:
        """All steps, one after the other."""
        streams = Streams(self.url, self.key)
        self._redis = Redis(port=self.redis_port)
        async with httpx.AsyncClient(base_url=self.url, timeout=30.0) as http:
            self._http = http
            try:
                await self._from_none(streams)
                await self._to_two(streams)
                await self._notice(streams)
                await self._to_one(streams)
                self.changes = await self.explained()
            finally:
                await streams.aclose()
                await self._redis.aclose()
        return self.steps

    _http: httpx.AsyncClient = field(init=False)
    _redis: Redis = field(init=False)

    async def _from_none(self, streams: Streams) -> None:
        """A request for a model without a replica is held until there is one."""
        await self.until(lambda seen: seen.total == 0)
        ended = await streams.one(Asked(MODEL, 16, 0))
        self._done(Step("0 to 1", ended.whole_s, [ended]))

    async def _to_two(self, streams: Streams) -> None:
        """Load that one replica does not do within its limits."""
        course, stop, began = self.course, asyncio.Event(), time.monotonic()
        loading = asyncio.create_task(
            streams.load(MODEL, course.short_tokens, course.clients, stop)
        )
        await self.until(lambda seen: seen.total >= 2)
        took_s = time.monotonic() - began
        stop.set()
        self._done(Step("1 to 2", took_s, await loading))

    async def _notice(self, streams: Streams) -> None:
        """The spot machine is about to go: its answers go on elsewhere, and it is replaced."""
        moved, running = await self.moved(), self._long(streams, 1)
        await self._all_begun(streams, running)
        self.notice.write_text("30")
        began = time.monotonic()
        await self.until(lambda seen: seen.draining >= 1 or seen.ready.get("spot", 0) == 0)
        self.notice.unlink()
        ended_first = all(task.done() for task in running)
        await self.until(lambda seen: seen.ready.get("spot", 0) == 1 and not seen.draining)
        took_s = time.monotonic() - began
        ended = await asyncio.gather(*running)
        step = Step("spot notice", took_s, ended, await self.moved() - moved, not ended_first)
        self._done(step)

    async def _to_one(self, streams: Streams) -> None:
        """Nothing more arrives: a replica goes while all answers are under way."""
        stop, short, course = asyncio.Event(), Streams(self.url, self.key), self.course
        # For a minute after the notice nothing shrinks: what is left of that ends first.
        await self.until(lambda seen: seen.total <= 1 and seen.wanted <= 1)
        loading = asyncio.create_task(short.load(MODEL, course.short_tokens, course.clients, stop))
        await self.until(lambda seen: seen.total >= 2 and seen.wanted >= 2 and not seen.draining)
        # So that both know what all prompts begin with, and long answers go to either; and while
        # the load lasts both are wanted, so that none goes before the long answers have begun.
        await asyncio.sleep(_WARM_S)
        moved, running = await self.moved(), self._long(streams, 2)
        await self._all_begun(streams, running)
        stop.set()
        await loading
        await short.aclose()
        began = time.monotonic()
        await self.until(lambda seen: seen.wanted == 1 and seen.total == 1)
        took_s = time.monotonic() - began
        under_way = sum(not task.done() for task in running)
        ended = await asyncio.gather(*running)
        moves = await self.moved() - moved
        self._done(Step("2 to 1", took_s, ended, moves, under_way > 0))

    def _done(self, step: Step) -> None:
        self.steps.append(step)
        print(step.row(), file=sys.stderr, flush=True)

    def _long(self, streams: Streams, series: int) -> list[asyncio.Task[Ended]]:
        course = self.course
        streams.begun = 0
        return [
            asyncio.create_task(streams.one(Asked(MODEL, course.tokens, 10_000 * series + number)))
            for number in range(course.streams)
        ]

    async def _all_begun(self, streams: Streams, running: Sequence[asyncio.Task[Ended]]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while streams.begun < len(running) and not any(task.done() for task in running):
            assert time.monotonic() < deadline, "not all streams begin"
            await asyncio.sleep(0.1)

    async def until(self, holds: Callable[[Replicas], bool]) -> Replicas:
        """The fleet, once it is so.

        Raises:
            TimeoutError: it does not come to be.
        """
        async with asyncio.timeout(_PATIENCE_S):
            while not holds(seen := await self.replicas()):  # noqa: ASYNC110 - asked for
                await asyncio.sleep(0.3)
        return seen

    async def replicas(self) -> Replicas:
        """As gateways tell, and as was decided last."""
        redis: Any = self._redis
        reports = await redis.hgetall(REPORTS)
        ready: dict[str, int] = {}
        draining: set[str] = set()
        seen: set[str] = set()
        for raw in reports.values():
            told = unpack(raw)
            model = told.models.get(MODEL) if told is not None else None
            for replica, each in (model.replicas if model is not None else {}).items():
                if each.draining:
                    draining.add(replica)
                elif each.reached and replica not in seen:
                    seen.add(replica)
                    ready[each.pool] = ready.get(each.pool, 0) + 1
        targets = await redis.hgetall(TARGETS)
        wanted = [decided(raw, time.time()) or 0 for raw in targets.values()]
        return Replicas(ready, len(draining), sum(wanted))

    async def explained(self) -> list[dict[str, Any]]:
        """The changes that are kept, oldest first, from the admin API."""
        headers = {"authorization": f"Bearer {self.admin_key}"}
        params: dict[str, str | int | bool] = {"model": MODEL, "changed": True, "limit": 100}
        path = "/admin/v1/autoscaling/decisions"
        answer = await self._http.get(path, headers=headers, params=params)
        return list(reversed(answer.raise_for_status().json()["data"]))

    async def moved(self) -> int:
        """Streams that went on elsewhere, since the platform's start."""
        headers = {"authorization": f"Bearer {self.internal_token}"}
        text = (await self._http.get("/metrics", headers=headers)).text
        lines = [each for each in text.splitlines() if each.startswith("weir_stream_moves_total{")]
        return int(sum(float(line.rpartition(" ")[2]) for line in lines))


@dataclass(frozen=True, slots=True)
class Replicas:
    """``ready``: by pool; ``wanted``: in all."""

    ready: Mapping[str, int]
    draining: int
    wanted: int

    @property
    def total(self) -> int:
        """Replicas that serve."""
        return sum(self.ready.values())
