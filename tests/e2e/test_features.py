"""Enrichment on the running platform: what Feast wrote is in the teacher's answers."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from load_tests.features.data import FeastWriter
from weir.samples.corpus import Example, check, requests
from weir.samples.render import render_system_message

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
]
INTENTS = ("order_status", "order_item", "order_price")
"""Questions whose answers are in the customer's block and nowhere else."""


@pytest.fixture(scope="module")
def asked() -> list[Example]:
    return list(requests(3, 24, "heldout", INTENTS, customers=24))


@pytest.fixture(scope="module")
def store(platform: Any, asked: list[Example], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The platform's Redis, with these customers in it, written by Feast. Returns its URL."""
    url = str(json.loads((platform.home / "platform.json").read_text())["redis_url"])
    folder: Path = tmp_path_factory.mktemp("features")
    people = list({each.customer.customer_id: each.customer for each in asked}.values())
    writer = FeastWriter(url, folder)
    now = dt.datetime.now(dt.UTC)
    writer.write_customers(people, now, "demo")
    writer.write_customers(people[:1], now, "somebody-else")
    return url


def ask(http: Any, platform: Any, example: Example, entity: str | None) -> Any:
    system = {"role": "system", "content": render_system_message(example.store, None)}
    body = {
        "model": platform.model,
        "messages": [system, *example.messages[1:]],
        "temperature": 0,
        "max_tokens": 48,
    }
    headers = {} if entity is None else {"x-weir-entity": entity}
    response = http.post("/v1/chat/completions", json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response


def text(response: Any) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


def test_answers_use_what_was_looked_up(platform: Any, store: str, asked: list[Example]) -> None:
    with platform.http() as http, ThreadPoolExecutor(4) as clients:
        named = list(clients.map(lambda each: ask(http, platform, each, each.entity_id), asked))
        unnamed = list(clients.map(lambda each: ask(http, platform, each, None), asked))
    # A busy machine may use up a budget of 5 ms now and then; what counts is that it works.
    hits = [response.headers["x-weir-features"] == "hit" for response in named]
    assert sum(hits) > len(asked) / 2
    assert {response.headers["x-weir-features"] for response in unnamed} == {"off"}
    right = [
        check(example, text(response))
        for example, response, hit in zip(asked, named, hits, strict=True)
        if hit
    ]
    guessed = [check(example, text(r)) for example, r in zip(asked, unnamed, strict=True)]
    assert sum(right) / len(right) > sum(guessed) / len(guessed) + 0.25


def test_another_tenants_customer_is_one_that_does_not_exist(
    platform: Any, store: str, asked: list[Example]
) -> None:
    entity = asked[0].customer.customer_id
    with platform.http() as http:
        answers = [
            ask(http, platform, asked[0], name)
            for name in ("nobody", f"somebody-else/{entity}", f"../somebody-else/{entity}")
        ]
    assert {r.headers["x-weir-features"] for r in answers} <= {"missing", "timeout"}
    assert len({r.json()["usage"]["prompt_tokens"] for r in answers}) == 1


def test_a_long_tail_customer_is_queued_for_generation(
    platform: Any, store: str, asked: list[Example]
) -> None:
    """Nobody has generated anything yet."""
    held = redis.Redis.from_url(store)
    deadline = time.monotonic() + 30
    with platform.http() as http:
        while not held.zcard("weir:tail:queue:demo"):
            ask(http, platform, asked[0], asked[0].entity_id)
            assert time.monotonic() < deadline
            time.sleep(0.3)
    held.close()


def test_the_metrics_tell(platform: Any, store: str) -> None:
    page = platform.metrics()
    up = re.findall(r"^weir_feature_store_up\{.*\} (\S+)$", page, re.MULTILINE)
    assert set(up) == {"1.0"}
    assert "weir_feature_lookups_total{" in page
