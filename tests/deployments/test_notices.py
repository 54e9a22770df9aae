"""Notices of interruption: the three clouds' formats from a metadata service, a node, a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from deployments.interruption import (
    MachineInterruptedError,
    refuse_if_interrupted,
    watch_notices,
)
from deployments.notices import NODE_VARIABLE, Notice, NoticeWatch, aws_notice, azure_notice
from deployments.pools import Membership
from deployments.streams import TokenStreams
from deployments.testing.scripted import ScriptedGenerator
from weir.settings.notices import NoticeSettings

NOW_S = 1_795_830_000.0  # 2026-11-28T01:40:00Z
AZURE_EVENT = {
    "EventId": "f020ba2e-3bc0-4c40-a10b-86575a9eabd5",
    "EventType": "Preempt",
    "ResourceType": "VirtualMachine",
    "Resources": ["vm-7"],
    "EventStatus": "Scheduled",
    "NotBefore": "Sat, 28 Nov 2026 01:40:31 GMT",
    "EventSource": "Platform",
    "Description": "Virtual machine is being evicted.",
    "DurationInSeconds": -1,
}


class Metadata:
    """A fake metadata service, and a fake API server; ``gone`` is a machine about to go."""

    def __init__(self) -> None:
        self.gone = False
        self.refused: list[str] = []
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        pages: dict[str, Callable[[web.Request], web.Response]] = {
            "/latest/api/token": self._aws_token,
            "/latest/meta-data/spot/instance-action": self._aws,
            "/computeMetadata/v1/instance/preempted": self._gcp,
            "/metadata/instance/compute/name": self._azure_name,
            "/metadata/scheduledevents": self._azure,
            "/api/v1/nodes/node-3": self._node,
        }
        return pages[request.path](request)

    def _require(self, request: web.Request, header: str, value: str) -> None:
        if request.headers.get(header) != value:
            self.refused.append(request.path)
            raise web.HTTPUnauthorized

    def _aws_token(self, request: web.Request) -> web.Response:
        assert request.method == "PUT"
        assert int(request.headers["X-aws-ec2-metadata-token-ttl-seconds"]) > 0
        return web.Response(text="the-token")

    def _aws(self, request: web.Request) -> web.Response:
        self._require(request, "X-aws-ec2-metadata-token", "the-token")
        if not self.gone:
            return web.Response(status=404)
        return web.json_response({"action": "terminate", "time": "2026-11-28T01:42:00Z"})

    def _gcp(self, request: web.Request) -> web.Response:
        self._require(request, "Metadata-Flavor", "Google")
        return web.Response(text="TRUE" if self.gone else "FALSE")

    def _azure_name(self, request: web.Request) -> web.Response:
        self._require(request, "Metadata", "true")
        return web.Response(text="vm-7")

    def _azure(self, request: web.Request) -> web.Response:
        self._require(request, "Metadata", "true")
        assert "api-version" in request.query
        other = {**AZURE_EVENT, "Resources": ["vm-8"]}
        reboot = {**AZURE_EVENT, "EventType": "Reboot"}
        events = [other, reboot, *([AZURE_EVENT] if self.gone else [])]
        return web.json_response({"DocumentIncarnation": 2, "Events": events})

    def _node(self, request: web.Request) -> web.Response:
        taint = {"key": "aws-node-termination-handler/spot-itn", "effect": "NoSchedule"}
        usual = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        return web.json_response(
            {
                "kind": "Node",
                "spec": {"taints": [usual, *([taint] if self.gone else [])]},
                "status": {"conditions": [{"type": "VMEventScheduled", "status": "False"}]},
            }
        )


@asynccontextmanager
async def metadata() -> AsyncIterator[tuple[Metadata, str]]:
    service, app = Metadata(), web.Application()
    app.router.add_route("*", "/{tail:.*}", service.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    try:
        yield service, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def watch(told: Callable[[Notice], None], **settings: Any) -> NoticeWatch:
    given = NoticeSettings.model_validate({"period_s": 0.01, **settings})
    return NoticeWatch(given, told, lambda: NOW_S, {NODE_VARIABLE: "node-3"})


@pytest.mark.parametrize(
    ("source", "left_s"), [("aws", 120.0), ("gcp", 30.0), ("azure", 31.0), ("kubernetes", 30.0)]
)
async def test_a_notice_is_heard_when_there_is_one(source: str, left_s: float) -> None:
    async with metadata() as (service, url):
        heard: list[Notice] = []
        running = asyncio.create_task(watch(heard.append, source=source, url=url).run())
        async with asyncio.timeout(10):
            while len(service.asked) < 6:  # noqa: ASYNC110 - a list, without an event
                await asyncio.sleep(0.01)
            assert heard == []
            service.gone = True
            await running
        assert [notice.at_s for notice in heard] == [NOW_S + left_s]
        assert service.refused == []


async def test_a_file_is_a_notice(tmp_path: Path) -> None:
    heard: list[Notice] = []
    file = tmp_path / "notice"
    running = asyncio.create_task(watch(heard.append, source="file", file=str(file)).run())
    await asyncio.sleep(0.05)
    assert heard == []
    file.write_text("45")
    async with asyncio.timeout(10):
        await running
    assert heard[0].at_s == NOW_S + 45.0


async def test_a_service_that_is_away_or_talks_nonsense_is_no_notice() -> None:
    heard: list[Notice] = []
    running = asyncio.create_task(watch(heard.append, source="gcp", url="http://127.0.0.1:1").run())
    await asyncio.sleep(0.1)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert heard == []
    assert aws_notice(json.dumps({"action": "sleep"}), NOW_S) is None
    assert aws_notice(json.dumps([]), NOW_S) is None
    assert azure_notice("{}", "vm-7", NOW_S) is None


async def test_a_replica_with_a_notice_drains_and_calls_itself_unhealthy(tmp_path: Path) -> None:
    file = tmp_path / "notice"
    streams = TokenStreams(ScriptedGenerator())
    settings = NoticeSettings(source="file", file=str(file), period_s=0.01)
    task = watch_notices(Membership("spot", notices=settings), streams)
    assert task is not None
    refuse_if_interrupted(streams)
    file.touch()
    async with asyncio.timeout(10):
        await task
    with pytest.raises(MachineInterruptedError):
        refuse_if_interrupted(streams)
    assert watch_notices(Membership(), streams) is None


def test_a_file_goes_with_the_source_file() -> None:
    with pytest.raises(ValueError, match="file"):
        NoticeSettings(source="file")
    with pytest.raises(ValueError, match="file"):
        NoticeSettings(source="aws", file="/x")
