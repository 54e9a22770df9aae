"""A gateway and replicas in one process: real sockets, real protocol, no Ray and no model."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from deployments.gateway.prompts import PromptEncoder
from deployments.testing.world import KEY, World, http_world
from weir.settings import ModelSettings, PriceSettings, Settings, TenantSettings
from weir.settings.autoscaling import AutoscalingSettings
from weir.settings.fallback import FallbackSettings, TenantFallbackSettings
from weir.settings.tenants import BudgetSettings
from weir.settings.tree import GatewaySettings, ServerSettings
from weir.tenancy import hash_key

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


PRICE = PriceSettings(input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=10.0)


@pytest.fixture
def encoder(tokenizer_folder: Path) -> PromptEncoder:
    """The encoder of all models here."""
    return PromptEncoder(tokenizer_folder)


def _settings(admission: dict[str, Any], *models: ModelSettings, **tenant: Any) -> Settings:
    return Settings(
        server=ServerSettings(max_body_bytes=10_000, request_timeout_s=30),
        gateway=GatewaySettings(resume_wait_s=0.3),
        models=models,
        tenants=(TenantSettings(id="t", key_sha256=(hash_key(KEY),), retention_days=1, **tenant),),
        admission=admission,
    )


@pytest.fixture
async def world(encoder: PromptEncoder, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A gateway with no replicas yet; parametrised with ``admission:`` where a test says so."""
    settings = _settings(getattr(request, "param", {}), ModelSettings(name="m", source="x"))
    async with http_world(settings, {"m": encoder}) as world:
        yield world


@dataclass
class Pair:
    """What a test says of a model and its student."""

    fallback: FallbackSettings = field(default_factory=lambda: FallbackSettings(student="s"))
    tenant: TenantFallbackSettings = field(default_factory=TenantFallbackSettings)
    admission: dict[str, Any] = field(default_factory=dict)
    budget: BudgetSettings | None = None


@pytest.fixture
def make_pair() -> type[Pair]:
    return Pair


@pytest.fixture
async def spilling(encoder: PromptEncoder) -> AsyncIterator[Callable[[Pair], Any]]:
    """Makes a gateway with a model ``m`` and its student ``s``, without replicas yet."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(pair: Pair) -> World:
            models = (
                ModelSettings(
                    name="m",
                    source="x",
                    price=PRICE,
                    fallback=pair.fallback,
                    # Else nothing would decide what is left to the student.
                    autoscaling=AutoscalingSettings() if pair.fallback.capacity.max_share else None,
                ),
                ModelSettings(name="s", source="x", price=PRICE),
            )
            told = {"fallback": pair.tenant, "budget": pair.budget}
            settings = _settings(pair.admission, *models, **told)
            encoders = {"m": encoder, "s": encoder}
            return await stack.enter_async_context(http_world(settings, encoders))

        yield make


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
            timeout=480,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
        assert lines, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return dict(json.loads(lines[0].removeprefix("RESULT")))

    return run
