"""Prompts and answers are nowhere but with the client, whatever kind of request and whatever
goes wrong."""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from deployments.gateway.tracing.spans import KeptTrace
from deployments.testing.cluster import Cluster, until
from deployments.testing.exchange import Exchange
from deployments.testing.judging import ask
from deployments.testing.kinds import KINDS, Kind
from weir.errors import BadRequestError
from weir.logs import JsonFormatter

Play = Callable[..., None]
CANARY = "Zeisig4711"
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def traces_of(cluster: Cluster) -> list[KeptTrace]:
    """What a collector would get."""
    tracer = cluster.gateway.parts.tracer
    assert tracer is not None
    return tracer.recent.newest(1000)


class Traces:
    """Where something could have been left."""

    def __init__(self, folder: Path) -> None:
        self.written = io.StringIO()
        self.folder = folder

    def find(self, cluster: Cluster, text: str) -> list[str]:
        """The places where the text is."""
        held = {
            "logs": self.written.getvalue(),
            "metrics": generate_latest(cluster.gateway.metrics.registry).decode(),
            "kept responses": repr(vars(cluster.responses.store)),
            "ledger": repr(vars(cluster.ledger)),
            "traces": repr(traces_of(cluster)),
        }
        files = [file for file in self.folder.rglob("*") if file.is_file()]
        held |= {str(file): file.read_bytes().decode("utf-8", "replace") for file in files}
        return [place for place, content in held.items() if text in content]


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """Everything that is logged, and every file that is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = Traces(tmp_path)
    handler = logging.StreamHandler(found.written)
    handler.setFormatter(JsonFormatter())
    loggers = [logging.getLogger(), logging.getLogger("weir")]
    before = [each.level for each in loggers]
    loggers[0].addHandler(handler)
    # What the settings may ask for: the libraries' own loggers stay at theirs.
    for each, level in zip(loggers, (logging.INFO, logging.DEBUG), strict=True):
        each.setLevel(level)
    yield found
    loggers[0].removeHandler(handler)
    for each, level in zip(loggers, before, strict=True):
        each.setLevel(level)


def _telling(kind: Kind, number: int = 1) -> dict[str, Any]:
    """The kind's body, with the canary where it says something."""
    told: dict[str, Any] = json.loads(json.dumps(kind.body(number)).replace("w2", CANARY))
    return told


async def _nothing_left(cluster: Cluster, traces: Traces, kind: Kind, *answers: Exchange) -> None:
    await until(lambda: not cluster.gateway_left_over())
    assert traces_of(cluster)
    # One in the background is kept because its client asks for it later.
    places = set(traces.find(cluster, CANARY))
    assert places <= ({"kept responses"} if kind.background else set())
    for answer in answers:
        for said in kind.read(bytes(answer.raw), False).said if answer.status == 200 else ():
            if said.text.count(" ") >= 3:
                found = set(traces.find(cluster, said.text))
                assert found <= ({"kept responses"} if kind.background else set())


@every_kind
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_of_an_answer(play: Play, kind: Kind, stream: bool, traces: Traces) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.add("a")
        told = ask(cluster, kind, 1, stream and kind.streams, "one", "r", **_telling(kind))
        await told.done()
        assert told.status == 200, told.raw
        await _nothing_left(cluster, traces, kind, *([] if stream else [told]))

    play(scenario)


@every_kind
@pytest.mark.parametrize(
    "error",
    [BadRequestError(f"cannot do {CANARY}"), RuntimeError(f"broken by {CANARY}")],
    ids=["refused", "broken"],
)
def test_of_a_request_that_an_engine_does_not_take(
    play: Play, kind: Kind, error: Exception, traces: Traces
) -> None:
    async def scenario(cluster: Cluster) -> None:
        for name in ("a", "b"):
            (await cluster.add(name)).generator.refuse = error
        await ask(cluster, kind, 1, kind.streams, "one", "r", **_telling(kind)).done()
        await _nothing_left(cluster, traces, kind)

    play(scenario, hasty=True)


@every_kind
def test_of_a_client_that_leaves(play: Play, kind: Kind, traces: Traces) -> None:
    async def scenario(cluster: Cluster) -> None:
        host = await cluster.add("a", interval_s=0.05)
        told = ask(cluster, kind, 1, kind.streams, "one", "r", **_telling(kind))
        await until(lambda: bool(host.meter.streams))
        await told.leave()
        await _nothing_left(cluster, traces, kind)

    play(scenario)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.streams], ids=lambda kind: kind.name
)
def test_of_a_stream_that_moves(play: Play, kind: Kind, traces: Traces) -> None:
    async def scenario(cluster: Cluster) -> None:
        hosts = [await cluster.add(name, interval_s=0.02) for name in ("a", "b")]
        told = ask(cluster, kind, 1, True, "one", "r", **_telling(kind))
        await until(lambda: any(host.meter.streams for host in hosts))
        busy = next(host for host in hosts if host.meter.streams)
        await until(lambda: any(served.output_tokens >= 3 for served in busy.meter.streams))
        await busy.kill()
        await told.done()
        await _nothing_left(cluster, traces, kind)

    play(scenario, hasty=True)


@every_kind
def test_of_a_body_that_is_wrong(play: Play, kind: Kind, traces: Traces) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.add("a")
        body = _telling(kind)
        wrong: list[dict[str, Any]] = [
            {"model": CANARY},
            {"model": [CANARY]},
            {"temperature": CANARY},
            {"stream": CANARY},
            {"messages": CANARY, "input": {CANARY: CANARY}, "prompt": {CANARY: 1}},
            {"messages": [{"role": CANARY, "content": CANARY}], "input": [{"type": CANARY}]},
            {CANARY: CANARY},
            {kind.limit_field: 10**6},
        ]
        for number, fields in enumerate(wrong):
            whole = {"model": "m", **body, **fields}
            await cluster.ask(kind.path, whole, "one", **{"x-request-id": f"r{number}"}).done()
        for header in ("x-weir-priority", "x-weir-entity", "x-weir-intent"):
            await cluster.ask(kind.path, {"model": "m", **body}, "one", **{header: CANARY}).done()
        assert (await cluster.ask(kind.path, {"model": "m", **body}, CANARY).done()).status == 401
        await _nothing_left(cluster, traces, kind)

    play(scenario)


@every_kind
def test_of_a_fault_of_the_gateways_own(
    play: Play, kind: Kind, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> Any:
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            raise RuntimeError(f"no {CANARY}") from error

    async def scenario(cluster: Cluster) -> None:
        await cluster.add("a")
        monkeypatch.setattr(cluster.gateway, "_enrich", fail)
        told = ask(cluster, kind, 1, False, "one", "r", **_telling(kind))
        await told.done()
        assert "RuntimeError" in traces.written.getvalue(), "the log says what it was"
        assert "KeyError" in traces.written.getvalue()
        await _nothing_left(cluster, traces, kind)

    play(scenario)


def test_the_canary_would_be_found(play: Play, traces: Traces) -> None:
    """Each of the places is looked at."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.add("a")
        logging.getLogger("weir.gateway").debug("said", extra={"text": CANARY})
        assert traces.find(cluster, CANARY) == ["logs"]
        (traces.folder / "spool").write_text(f"a {CANARY}")
        cluster.gateway.metrics.requests.labels(CANARY, "m", "chat", "200", "").inc()
        kept = {"model": "m", "input": f"w1 {CANARY}", "store": True}
        await cluster.ask("/v1/responses", kept, "one").done()
        told = {"model": "m", "messages": [{"role": "user", "content": f"w1 {CANARY}"}]}
        await cluster.ask("/v1/chat/completions", told, "told").done()
        places = {Path(place).name for place in traces.find(cluster, CANARY)}
        assert places == {"logs", "metrics", "kept responses", "spool", "traces"}

    play(scenario)
