"""A gateway and replicas in one process: real sockets, real protocol, no Ray and no model."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from tokenizers import Tokenizer, models, pre_tokenizers

from deployments import wire
from deployments.gateway.app import GatewayApp
from deployments.gateway.gateway import Gateway, Limits
from deployments.gateway.models import ServedModel
from deployments.gateway.pages import build_pages
from deployments.gateway.prompts import PromptEncoder
from deployments.gateway.relay import OpenAIRelay
from deployments.gateway.replicas import ReplicaConnections
from deployments.gateway.steps import NoEnrichment, UnlimitedQuota
from deployments.listener import Listener, ReplicaApp
from deployments.streams import Abort, Put, TokenStreams
from router.admission import AdmissionSettings
from router.subscription import Subscription
from router.types import ReplicaInfo
from weir.metrics import GatewayMetrics
from weir.settings import ModelSettings, PriceSettings, TenantSettings
from weir.settings.fallback import FallbackSettings, TenantFallbackSettings
from weir.tenancy import KeyRing, hash_key

KEY = "weir_test-key"
TOKEN = "internal"
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with a handful of words and a chat template."""
    folder = tmp_path_factory.mktemp("tokenizer")
    words = ["[unk]", "user", "system", "assistant", ":", "hello", "world"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"chat_template": TEMPLATE, "bos_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@dataclass
class ScriptedGenerator:
    """Generates when the test says so. ``started`` and ``aborted`` hold request ids."""

    started: dict[str, Callable[[wire.FromReplica], None]] = field(default_factory=dict)
    requests: dict[str, wire.Submit] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)
    refuse: Exception | None = None
    submitting: asyncio.Event | None = None

    def load(self) -> wire.Load:
        return wire.Load(len(self.started), 0, 7)

    async def submit(self, request: wire.Submit, put: Put) -> Abort:
        if self.submitting is not None:
            await self.submitting.wait()
        if self.refuse is not None:
            raise self.refuse
        self.requests[request.request_id] = request
        self.started[request.request_id] = put

        async def abort() -> None:
            self.aborted.append(request.request_id)
            self.started.pop(request.request_id, None)

        return abort

    def say(self, request_id: str, text: str, logprob: float | None = None) -> None:
        number = self.requests[request_id].stream
        put = self.started[request_id]
        if logprob is None:
            put(wire.Chunk(number, text, [1]))
        else:
            put(wire.ScoredChunk(number, text, [1], [logprob]))

    def end_scored(self, request_id: str, text: str, logprob: float, count: int = 1) -> None:
        request = self.requests[request_id]
        put = self.started.pop(request_id)
        done = (request.stream, text, [1], "stop", len(request.prompt), 0, count)
        put(wire.ScoredDone(*done, [logprob]))

    def end(self, request_id: str, text: str = "", count: int = 1) -> None:
        request = self.requests[request_id]
        put = self.started.pop(request_id)
        prompt = len(request.prompt)
        put(wire.Done(request.stream, text, [1], "stop", prompt, 0, count))


@dataclass
class Replica:
    """A replica's listener around a scripted generator."""

    name: str
    generator: ScriptedGenerator
    streams: TokenStreams
    app: ReplicaApp
    listener: Listener

    @property
    def info(self) -> ReplicaInfo:
        return ReplicaInfo(
            self.name,
            address=self.listener.address,
            kv_blocks_total=100,
            max_model_len=64,
            tasks=frozenset({"generate"}),
        )


class World:
    """The gateway under test, its replicas, and the HTTP client in front."""

    def __init__(
        self, gateway: Gateway, model: ServedModel, session: aiohttp.ClientSession
    ) -> None:
        self.gateway = gateway
        self.model = model
        self.session = session
        self.replicas: list[Replica] = []
        self.members: tuple[ReplicaInfo, ...] = ()
        self.url = ""
        self.student: ServedModel | None = None

    async def add_student_replica(self, name: str) -> Replica:
        assert self.student is not None
        replica = await self._start_replica(name)
        self.student.router.set_replicas((*self.student.router.members, replica.info))
        return replica

    async def add_replica(self, name: str) -> Replica:
        replica = await self._start_replica(name)
        self.members = (*self.members, replica.info)
        self.model.router.set_replicas(self.members)
        return replica

    async def _start_replica(self, name: str) -> Replica:
        generator = ScriptedGenerator()
        streams = TokenStreams(generator)
        app = ReplicaApp(_openai_stub, streams, TOKEN)
        listener = Listener(app, "127.0.0.1")
        await listener.start()
        replica = Replica(name, generator, streams, app, listener)
        self.replicas.append(replica)
        return replica

    def post(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> Any:
        headers = {"authorization": f"Bearer {KEY}", "x-request-id": body.pop("id", "r1")}
        return self.session.post(self.url + path, json={"model": "m", **body}, headers=headers)

    def outstanding(self) -> int:
        return sum(v.load.requests for v in self.model.router.snapshot().replicas)


async def _openai_stub(scope: dict[str, Any], receive: Any, send: Any) -> None:
    body = json.dumps({"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 3}})
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})


class CancelOnDisconnect:
    """What Serve's ingress does around the app: the client's leaving cancels the request."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

        async def read() -> None:
            while True:
                event = await receive()
                await events.put(event)
                if event["type"] == "http.disconnect":
                    return

        reader = asyncio.ensure_future(read())
        work = asyncio.ensure_future(self._app(scope, events.get, send))
        await asyncio.wait([reader, work], return_when=asyncio.FIRST_COMPLETED)
        for task in (work, reader):
            if not task.done():
                task.cancel()
        await asyncio.gather(work, reader, return_exceptions=True)


class _Chooser:
    """What Serve and the adapter do together, without Serve."""

    @asynccontextmanager
    async def choose_replica(self, subscription: Subscription) -> AsyncIterator[None]:
        yield


@pytest.fixture
async def world(tokenizer_folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A gateway with no replicas yet; parametrised with admission settings where a test says so."""
    session = aiohttp.ClientSession()
    settings = ModelSettings(name="m", source="x")
    admission = getattr(request, "param", AdmissionSettings())
    model = ServedModel(settings, admission, PromptEncoder(tokenizer_folder), _Chooser())
    connections = ReplicaConnections(session, TOKEN, model.record_load, model.router.stepped)
    model.connect_through(connections)
    gateway = Gateway(
        keys=KeyRing([TenantSettings(id="t", key_sha256=(hash_key(KEY),))]),
        models={"m": model},
        quota=UnlimitedQuota(),
        enricher=NoEnrichment(),
        classes=[c.name for c in admission.classes],
        relay=OpenAIRelay(session, TOKEN),
        metrics=GatewayMetrics(CollectorRegistry()),
        limits=Limits(max_body_bytes=10_000, dispatch_attempts=3, request_timeout_s=30),
    )
    world = World(gateway, model, session)
    pages = build_pages(gateway, session, TOKEN, _no_deployments)
    front = Listener(CancelOnDisconnect(GatewayApp(gateway, pages)), "127.0.0.1")
    await front.start()
    world.url = f"http://{front.address}"
    yield world
    await session.close()
    await front.stop()
    await model.close()
    for replica in world.replicas:
        await replica.listener.stop()


@dataclass
class Pair:
    """What a test says of a model and its student."""

    fallback: FallbackSettings = field(default_factory=lambda: FallbackSettings(student="s"))
    tenant: TenantFallbackSettings = field(default_factory=TenantFallbackSettings)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    student_admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    slo_s: dict[str, float] = field(default_factory=dict)


@pytest.fixture
def make_pair() -> type[Pair]:
    return Pair


@pytest.fixture
async def spilling(tokenizer_folder: Path) -> AsyncIterator[Callable[[Pair], Any]]:
    """Makes a gateway with a model ``m`` and its student ``s``, without replicas yet."""
    ends: list[Callable[[], Any]] = []

    async def make(pair: Pair) -> World:
        session = aiohttp.ClientSession()
        models = {}
        price = PriceSettings(input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=10.0)
        for name, admission in (("m", pair.admission), ("s", pair.student_admission)):
            fallback = pair.fallback if name == "m" else None
            settings = ModelSettings(name=name, source="x", price=price, fallback=fallback)
            encoder = PromptEncoder(tokenizer_folder)
            models[name] = ServedModel(settings, admission, encoder, _Chooser())
            load, step = models[name].record_load, models[name].router.stepped
            models[name].connect_through(ReplicaConnections(session, TOKEN, load, step))
        tenant = TenantSettings(id="t", key_sha256=(hash_key(KEY),), fallback=pair.tenant)
        gateway = Gateway(
            keys=KeyRing([tenant]),
            models=models,
            quota=UnlimitedQuota(),
            enricher=NoEnrichment(),
            classes=[c.name for c in pair.admission.classes],
            relay=OpenAIRelay(session, TOKEN),
            metrics=GatewayMetrics(CollectorRegistry()),
            limits=Limits(max_body_bytes=10_000, dispatch_attempts=3, request_timeout_s=30),
            tenants=[tenant],
            slo_s=pair.slo_s,
        )
        world = World(gateway, models["m"], session)
        world.student = models["s"]
        pages = build_pages(gateway, session, TOKEN, _no_deployments)
        front = Listener(CancelOnDisconnect(GatewayApp(gateway, pages)), "127.0.0.1")
        await front.start()
        world.url = f"http://{front.address}"
        watchers = [asyncio.ensure_future(w) for w in gateway.spills.watchers()]

        async def end() -> None:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            await session.close()
            await front.stop()
            for model in models.values():
                await model.close()
            for replica in world.replicas:
                await replica.listener.stop()

        ends.append(end)
        return world

    yield make
    for end in ends:
        await end()


async def _no_deployments() -> list[dict[str, Any]]:
    return [
        {"name": "model-m", "app": "weir", "status": "HEALTHY", "replica_states": {"RUNNING": 1}}
    ]


# What each script begins with: from an engine child to a generator, as a replica does it.
_PRELUDE = """
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.executor.abstract import Executor
from deployments.engine import LoadRecorder
from deployments.vllm_generator import VllmGenerator

def generator_of(config, child):
    recorders = []
    def factory(config, index):
        recorders.append(LoadRecorder(config.cache_config.num_gpu_blocks or 0))
        return recorders[-1]
    client = AsyncLLM(config, Executor.get_class(config), log_stats=True, log_requests=False,
                      stat_loggers=[factory], client_addresses=child.client_addresses())
    return client, VllmGenerator(client, lambda: recorders[0].load), recorders
"""


@pytest.fixture(scope="session")
def with_teacher(repo_root: Path, package_env: dict[str, str]) -> Callable[[str], dict[str, Any]]:
    """Runs a script with the teacher's folder as its argument and returns the JSON object that it
    prints behind ``RESULT``. In a process of its own: vLLM's imports warn in ways that are not
    ours to fix, an engine's threads end with their process, and another wants a fresh one."""
    model = repo_root / "platform" / "weir" / "artifacts" / "teacher"
    env = package_env | {
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "TORCH_COMPILE_DISABLE": "1",
    }
    env.pop("PYTHONDONTWRITEBYTECODE", None)

    def run(script: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", _PRELUDE + script, str(model)],
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
        assert lines, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return dict(json.loads(lines[0].removeprefix("RESULT")))

    return run
