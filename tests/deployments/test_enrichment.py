"""Enrichment through the gateway: over HTTP, before a store that the test controls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any
from unicodedata import normalize

import pytest
from prometheus_client import CollectorRegistry

from deployments.gateway.enrichment import FeatureEnricher
from deployments.gateway.feature_store import store_url
from features.enrichment import compile_rules
from features.keys import entity_key
from features.online import CacheSettings, FeatureReader, StoreAddress, StoreLink
from features.testing import EAGER, FakeRedis
from weir.errors import ConfigError
from weir.metrics import GatewayMetrics
from weir.settings import TenantSettings, load_settings
from weir.tenancy import Directory, LiveDirectory, hash_key

OTHER_KEY = "weir_other"
SERVICES = {"s": {"long_tail_view": "v", "views": {"v": {"features": {"name": {}}}}}}
RULE: dict[str, Any] = {
    "service": "s",
    "entity": "header: x-weir-entity",
    "budget_ms": 5000,
    "template": "{% if name %}world {{ name }}{% endif %}",
}
MESSAGES = [{"role": "system", "content": "system"}, {"role": "user", "content": "hello"}]


@dataclass
class Tail:
    """Remembers what it was told."""

    noted: list[tuple[str, str]] = field(default_factory=list)

    async def note(self, tenant_id: str, entity_id: str) -> None:
        self.noted.append((tenant_id, entity_id))

    async def aclose(self) -> None:
        """Nothing is left."""


class Setup:
    """The gateway's world with an enricher in it."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.redis = FakeRedis()
        self.tail = Tail()
        self.metrics = GatewayMetrics(CollectorRegistry())
        self.enricher: FeatureEnricher | None = None
        self.replica: Any = None

    async def start(self, **rule: Any) -> None:
        await self.redis.start()
        section = {"enabled": True, "services": SERVICES, "enrich": [{**RULE, **rule}]}
        settings = load_settings("stub", overlay={"features": section})
        link = StoreLink(StoreAddress.parse(self.redis.url), EAGER)
        self.enricher = FeatureEnricher(
            compile_rules(settings.features, {"SECRET": "s" * 32}),
            link,
            FeatureReader(link, CacheSettings(0)),
            self.metrics,
            self.tail,
        )
        self.enricher.start()
        await link.wait_until_up()
        gateway = self.world.gateway
        tenants = (
            TenantSettings(id="t", key_sha256=(hash_key("weir_test-key"),)),
            TenantSettings(id="other", key_sha256=(hash_key(OTHER_KEY),)),
        )
        live = LiveDirectory(Directory.of(tenants), time.time)
        gateway.__init__(replace(gateway.parts, enricher=self.enricher, directory=live))
        self.replica = await self.world.add_replica("r1")

    async def close(self) -> None:
        if self.enricher is not None:
            await self.enricher.close()
        await self.redis.stop()

    async def ask(
        self,
        entity: str | None,
        key: str = "weir_test-key",
        path: str = "chat/completions",
        **body: Any,
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body of a request that is answered as soon as it arrives."""
        headers = {"authorization": f"Bearer {key}"}
        if entity is not None:
            headers["x-weir-entity"] = entity
        content = {"messages": MESSAGES} if path.startswith("chat") else {}
        answering = asyncio.create_task(self._answer())
        async with self.world.session.post(
            f"{self.world.url}/v1/{path}", json={"model": "m", **content, **body}, headers=headers
        ) as response:
            answer = await response.json()
            answering.cancel()
            lower = {name.lower(): value for name, value in response.headers.items()}
            return response.status, lower, answer

    async def _answer(self) -> None:
        generator = self.replica.generator
        while not generator.started:  # noqa: ASYNC110 - the generator has no event
            await asyncio.sleep(0.001)
        for request_id in list(generator.started):
            generator.end(request_id, "ok")

    def prompt(self) -> list[int]:
        """The token ids that the replica was given last."""
        requests = list(self.replica.generator.requests.values())
        return list(requests[-1].prompt)


WORDS = {"user": 1, "system": 2, "assistant": 3, ":": 4, "hello": 5, "world": 6}
PLAIN = [2, 4, 2, 1, 4, 5, 3, 4]
"""system : system user : hello assistant :"""
ENRICHED = [2, 4, 2, 6, 5, 1, 4, 5, 3, 4]
"""The same with "world hello" behind the system prompt."""


@pytest.fixture
async def setup(world: Any) -> AsyncIterator[Setup]:
    setup = Setup(world)
    yield setup
    await setup.close()


async def test_features_are_in_the_prompt_and_in_the_headers(setup: Setup) -> None:
    await setup.start()
    setup.redis.put(entity_key("t", "7"), "hello")
    status, headers, _ = await setup.ask("7")
    assert (status, headers["x-weir-features"]) == (200, "hit")
    assert float(headers["x-weir-features-age-s"]) > 1e9
    assert setup.prompt() == ENRICHED
    assert setup.tail.noted == []


async def test_features_are_in_the_prompt_of_anthropics_clients(setup: Setup) -> None:
    await setup.start()
    setup.redis.put(entity_key("t", "7"), "hello")
    spoken = {"system": "system", "messages": MESSAGES[1:], "max_tokens": 5}
    status, headers, _ = await setup.ask("7", path="messages", **spoken)
    assert (status, headers["x-weir-features"]) == (200, "hit")
    assert setup.prompt() == ENRICHED
    counted = {name: value for name, value in spoken.items() if name != "max_tokens"}
    _, headers, told = await setup.ask("7", path="messages/count_tokens", **counted)
    assert headers["x-weir-features"] == "hit"
    assert told == {"input_tokens": len(ENRICHED)}


async def test_another_tenants_entity_is_answered_like_a_missing_one(setup: Setup) -> None:
    await setup.start()
    setup.redis.put(entity_key("other", "7"), "hello")
    answers = []
    for entity in ("7", "other/7", "../other/7", "nobody"):
        status, headers, _ = await setup.ask(entity)
        assert setup.prompt() == PLAIN
        answers.append((status, {n: v for n, v in headers.items() if n.startswith("x-weir-feat")}))
    assert (
        answers == [(200, {"x-weir-features": "missing", "x-weir-features-reason": "missing"})] * 4
    )
    assert [tenant for tenant, _ in setup.tail.noted] == ["t"] * 4
    _, headers, _ = await setup.ask("7", key=OTHER_KEY)
    assert headers["x-weir-features"] == "hit"
    assert setup.prompt() == ENRICHED


@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_an_entity_may_have_any_letters(setup: Setup, form: Any) -> None:
    await setup.start()
    setup.redis.put(entity_key("t", normalize("NFC", "jörg")), "hello")
    _, headers, _ = await setup.ask(normalize(form, "jörg"))
    assert (headers["x-weir-features"], setup.prompt()) == ("hit", ENRICHED)


async def test_without_an_entity_nothing_is_looked_up(setup: Setup) -> None:
    await setup.start()
    _, headers, _ = await setup.ask(None)
    assert (headers["x-weir-features"], headers["x-weir-features-reason"]) == ("off", "no-entity")
    assert (setup.prompt(), setup.redis.reads) == (PLAIN, 0)


async def test_a_claim_that_cannot_be_verified_counts_as_absent(setup: Setup) -> None:
    await setup.start(entity="claim: sub in x-weir-entity", claim_secret_env="SECRET")
    _, headers, _ = await setup.ask("a.b.c")
    assert headers["x-weir-features"] == "off"
    assert headers["x-weir-features-reason"] == "claim-unverified: no token"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (None, "timeout"),
        (b"nonsense\r\n", "down"),
        (b"*2\r\n$2\r\n\x08\x01\r\n$2\r\n\x20\x05\r\n", "partial"),
    ],
)
async def test_without_the_store_the_request_goes_on(
    setup: Setup, answer: bytes | None, outcome: str
) -> None:
    await setup.start(budget_ms=10)
    setup.redis.answer = lambda: answer
    status, headers, _ = await setup.ask("7")
    assert (status, headers["x-weir-features"]) == (200, outcome)
    assert setup.prompt() == PLAIN
    assert setup.tail.noted == []
    lookups = setup.metrics.feature_lookups.labels("t", "m", outcome)
    assert lookups._value.get() == 1


@pytest.mark.parametrize(
    ("entity", "status", "code"),
    [(None, 400, "entity_required"), ("nobody", 404, "entity_not_found"), ("7", 200, None)],
)
async def test_required_features_are_required(
    setup: Setup, entity: str | None, status: int, code: str | None
) -> None:
    await setup.start(required=True)
    setup.redis.put(entity_key("t", "7"), "hello")
    found, _, body = await setup.ask(entity)
    assert (found, body.get("error", {}).get("code")) == (status, code)
    if code:
        assert body["error"]["param"] == "x-weir-entity"
    assert setup.world.outstanding() == 0


async def test_what_can_be_no_entity_is_invalid_and_says_why(setup: Setup) -> None:
    await setup.start()
    status, headers, _ = await setup.ask("7" * 300)
    assert (status, headers["x-weir-features"]) == (200, "invalid")
    assert headers["x-weir-features-reason"] == "entity: an entity id has at most 256 characters"
    assert (setup.prompt(), setup.redis.reads) == (PLAIN, 0)
    assert setup.metrics.feature_lookups.labels("t", "m", "invalid")._value.get() == 1


async def test_where_features_are_required_what_is_no_entity_is_a_400(setup: Setup) -> None:
    await setup.start(required=True)
    status, _, body = await setup.ask("7" * 300)
    assert (status, body["error"]["code"]) == (400, "entity_invalid")
    assert "at most 256 characters" in body["error"]["message"]


async def test_where_features_are_required_a_token_that_is_not_believed_is_a_401(
    setup: Setup,
) -> None:
    await setup.start(
        required=True, entity="claim: sub in x-weir-entity", claim_secret_env="SECRET"
    )
    status, _, body = await setup.ask("a.b.c")
    assert (status, body["error"]["code"]) == (401, "claim_unverified")
    assert body["error"]["message"] == "x-weir-entity: claim-unverified: no token."
    status, _, body = await setup.ask(None)
    assert (status, body["error"]["code"]) == (400, "entity_required")


async def test_required_features_and_no_store_is_a_503(setup: Setup) -> None:
    await setup.start(required=True, budget_ms=10)
    setup.redis.answer = lambda: None
    status, headers, body = await setup.ask("7")
    assert (status, body["error"]["code"]) == (503, "features_unavailable")
    assert headers["retry-after"] == "1"


async def test_a_template_that_fails_is_no_error(setup: Setup) -> None:
    await setup.start(template="{{ name.nothing.there }}")
    setup.redis.put(entity_key("t", "7"), "hello")
    status, headers, _ = await setup.ask("7")
    assert (status, headers["x-weir-features"]) == (200, "partial")
    assert headers["x-weir-features-reason"] == "template"
    assert setup.prompt() == PLAIN


async def test_a_plain_prompt_gets_the_text_in_front(setup: Setup) -> None:
    await setup.start()
    setup.redis.put(entity_key("t", "7"), "hello")
    await setup.ask("7", path="completions", prompt="user")
    assert setup.prompt() == [6, 5, 1]
    _, headers, _ = await setup.ask("7", path="completions", prompt=[1, 2])
    assert headers["x-weir-features-reason"] == "token-ids"
    assert setup.prompt() == [1, 2]


async def test_text_parts_are_added_to(setup: Setup) -> None:
    await setup.start()
    setup.redis.put(entity_key("t", "7"), "hello")
    parts = [{"type": "text", "text": "system"}]
    await setup.ask("7", messages=[{"role": "system", "content": parts}, MESSAGES[1]])
    assert setup.prompt() == ENRICHED


async def test_a_client_that_leaves_while_features_are_looked_up(setup: Setup) -> None:
    await setup.start()
    asked = asyncio.Event()
    setup.redis.answer = lambda: asked.set()
    task = asyncio.create_task(setup.ask("7"))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gone = setup.world.gateway.metrics.cancelled.labels("t", "m")
    while gone._value.get() == 0:  # noqa: ASYNC110 - the gateway notices when it reads
        await asyncio.sleep(0.001)
    assert setup.replica.generator.requests == {}
    assert setup.world.outstanding() == 0


def test_the_store_is_the_platforms_unless_told() -> None:
    settings = load_settings("laptop", overlay={"redis": {"port": 6400}})
    assert store_url(settings, {}) == "redis://127.0.0.1:6400/0"
    own = load_settings("laptop", overlay={"features": {"redis_url": "redis://b:1/0"}})
    assert store_url(own, {}) == "redis://b:1/0"
    assert store_url(own, {"WEIR_FEATURES_REDIS_URL": "redis://c:1/0"}) == "redis://c:1/0"
    external = load_settings("laptop", overlay={"redis": {"mode": "external"}})
    assert store_url(external, {"WEIR_REDIS_URL": "redis://d:1/0"}) == "redis://d:1/0"
    with pytest.raises(ConfigError, match=r"redis\.url"):
        store_url(external, {})
