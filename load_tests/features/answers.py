"""The real teacher through the real platform: are answers right with looked-up context, and does
the placement keep the shared prefix cacheable?

Three tenants, so that none meets another's cached blocks: one whose features go after the system
prompt, one whose features go before it, and one that sends the facts itself (what is the best that
enrichment can do). Requests without a named customer show what the teacher does without.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from deployments.sources import model_source
from features.keys import entity_key
from load_tests.features.data import FeastWriter
from load_tests.loadgen import Target
from load_tests.servers import EngineWorkload, Launch, free_port, http_ready, start
from load_tests.servers.weir_platform import MODULE, Keys, platform_settings, write_state
from weir.samples.corpus import Example, check, requests
from weir.samples.intents import INTENTS
from weir.samples.render import render_system_message
from weir.settings import Settings, load_settings, parse_settings
from weir.tenancy import hash_key, new_key

TABLE = "the teacher's answers over HTTP, held-out customers"
_CONTEXT_FREE = ("account_unavailable", "store_unknown")
_IN_FLIGHT = 8
_MAX_TOKENS = 64
_BUDGET_MS = 1000.0
"""So that a busy machine does not decide what the answers are measured on; the latency rows and
the fault table have the real budget."""


class AskError(Exception):
    """The platform refused a request of the bench."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a request gets its context. ``named``: it names its customer in a header."""

    title: str
    tenant: str
    named: bool
    facts_inline: bool = False


WAYS = (
    Way("enriched, after the system prompt", "after", named=True),
    Way("enriched, before the system prompt", "before", named=True),
    Way("not enriched", "without", named=False),
    Way("facts sent by the client", "inline", named=False, facts_inline=True),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, judged by :func:`weir.samples.corpus.check`."""

    right: bool
    group: str
    outcome: str
    prompt_tokens: int
    cached_tokens: int


def examples(seed: int, count: int) -> list[Example]:
    """Questions about held-out customers that need the customer's or the store's facts."""
    intents = [intent for intent in INTENTS if intent not in _CONTEXT_FREE]
    return list(requests(seed, count, "heldout", intents, zipf=1.0, customers=300, stores=8))


def answer_rows(workload: EngineWorkload, seed: int, count: int) -> list[dict[str, Any]]:
    """One row per way. Starts the platform, writes the features through Feast, asks, stops it.

    Raises:
        StartError: the platform did not come up.
    """
    asked = examples(seed, count)
    keys = {way.tenant: new_key() for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="weir-features-") as name:
        folder = Path(name)
        settings = _settings(workload, keys)
        internal = Keys(next(iter(keys.values())), secrets.token_urlsafe(24))
        state = write_state(settings, internal, folder)
        command = [sys.executable, "-P", "-m", MODULE, "--settings", str(state / "settings.yaml")]
        command += ["--state", str(state)]
        port = settings.server.port
        env = {"WEIR_INTERNAL_TOKEN": internal.internal}
        launch = Launch("weir", command, http_ready(port, "/ready"), env, stop_timeout_s=60)
        with start([launch], Target("127.0.0.1", port)):
            _write(f"redis://127.0.0.1:{settings.redis.port}/0", folder / "feast", asked)
            print("features written; asking", file=sys.stderr, flush=True)
            answers = asyncio.run(_ask_all(f"http://127.0.0.1:{port}", workload, keys, asked))
    return [_row(way, answers[way.tenant]) for way in WAYS]


def _settings(workload: EngineWorkload, keys: Mapping[str, str]) -> Settings:
    first = Keys(next(iter(keys.values())), "")
    model = {"source": model_source(str(workload.model)), "replicas": 1}
    tree = platform_settings(workload, model, free_port(), first).model_dump(mode="json")
    tree["tenants"] = [{"id": t, "key_sha256": [hash_key(key)]} for t, key in keys.items()]
    desk = load_settings("laptop").features.model_dump(mode="json", exclude_defaults=True)
    services = desk["services"]
    services["support_desk"]["views"]["replay"] = {"features": {"today": {}}}
    rule = {
        "service": "support_desk",
        "entity": "header: x-weir-entity",
        "template": "support_desk",
        "budget_ms": _BUDGET_MS,
    }
    tree["features"] = {
        "enabled": True,
        "services": services,
        "enrich": [
            {**rule, "tenants": ["after"], "placement": "after_system"},
            {**rule, "tenants": ["before"], "placement": "before_system"},
        ],
    }
    return parse_settings(tree, "the bench's settings")


def _write(redis_url: str, folder: Path, asked: Sequence[Example]) -> None:
    writer = FeastWriter(redis_url, folder)
    people = list({example.customer.customer_id: example.customer for example in asked}.values())
    now = dt.datetime.now(dt.UTC)
    for tenant in ("after", "before"):
        writer.write_customers(people, now, tenant)
        writer.add_replay_clock(
            [
                {
                    "entity": entity_key(tenant, customer.customer_id),
                    "today": customer.today.isoformat(),
                }
                for customer in people
            ],
            now,
        )


async def _ask_all(
    url: str, workload: EngineWorkload, keys: Mapping[str, str], asked: Sequence[Example]
) -> dict[str, list[Answer]]:
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(base_url=url, timeout=timeout) as session:
        found = {}
        for way in WAYS:
            room = asyncio.Semaphore(_IN_FLIGHT)
            found[way.tenant] = await asyncio.gather(
                *(_ask(session, workload, keys[way.tenant], way, each, room) for each in asked)
            )
        return found


async def _ask(
    session: aiohttp.ClientSession,
    workload: EngineWorkload,
    key: str,
    way: Way,
    example: Example,
    room: asyncio.Semaphore,
) -> Answer:
    messages: list[Any] = list(example.messages)
    if not way.facts_inline:
        messages[0] = {"role": "system", "content": render_system_message(example.store, None)}
    headers = {"authorization": f"Bearer {key}"}
    if way.named:
        headers["x-weir-entity"] = example.entity_id
    body = {
        "model": workload.served_name,
        "messages": messages,
        "temperature": 0,
        "max_tokens": _MAX_TOKENS,
    }
    async with (
        room,
        session.post("/v1/chat/completions", json=body, headers=headers) as response,
    ):
        answer = await response.json()
        if response.status != 200:
            raise AskError(f"{way.title}: {response.status}: {answer}")
        usage = answer["usage"]
        return Answer(
            right=check(example, answer["choices"][0]["message"]["content"]),
            group=example.group,
            outcome=response.headers.get("x-weir-features", ""),
            prompt_tokens=usage["prompt_tokens"],
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
        )


def _row(way: Way, answers: Sequence[Answer]) -> dict[str, Any]:
    prompt = sum(answer.prompt_tokens for answer in answers)
    return {
        "system": way.title,
        "requests": len(answers),
        "right_share": _right(answers),
        "right_share_common": _right([a for a in answers if a.group == "common"]),
        "right_share_rare": _right([a for a in answers if a.group == "rare"]),
        "features_hit": sum(answer.outcome == "hit" for answer in answers),
        "mean_prompt_tokens": prompt / len(answers),
        "kv_cache_hit_share": sum(answer.cached_tokens for answer in answers) / prompt,
        "table": TABLE,
    }


def _right(answers: Sequence[Answer]) -> float | None:
    return sum(answer.right for answer in answers) / len(answers) if answers else None
