"""A support desk's traffic for a platform that runs: several tenants and classes, conversations
that come back, customers with and without features, a burst now and then."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from weir.samples.corpus import Example
from weir.samples.render import render_system_message

_CLASSES = ("interactive", "interactive", "standard", "batch")


@dataclass(frozen=True, slots=True)
class Target:
    """``keys``: of the tenants that ask, by tenant; the first one asks most."""

    url: str
    model: str
    keys: dict[str, str]


def send(
    target: Target,
    examples: Sequence[Example],
    for_s: float,
    clients: int = 6,
    seed: int = 1,
    students: str | None = None,
) -> dict[str, int]:
    """Ask for a while; how many requests of each tenant were answered. ``students``: a model that
    is asked by name, too."""
    until_s = time.monotonic() + for_s
    answered = dict.fromkeys(target.keys, 0)
    lock = threading.Lock()

    def client(number: int) -> None:
        rng = random.Random(f"{seed}-{number}")
        tenants = list(target.keys)
        with httpx.Client(base_url=target.url, timeout=60) as http:
            while time.monotonic() < until_s:
                tenant = tenants[min(int(rng.expovariate(1.2)), len(tenants) - 1)]
                model = students if students and rng.random() < 0.1 else target.model
                response = http.post(
                    "/v1/chat/completions",
                    json=_body(rng, model, examples),
                    headers=_headers(rng, target.keys[tenant], examples),
                )
                with lock:
                    answered[tenant] += response.status_code == 200
                # Quiet and busy times of some ten seconds each.
                time.sleep(rng.expovariate(2.0 if time.monotonic() % 24 < 12 else 10.0))

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(client, range(clients)))
    return answered


def _body(rng: random.Random, model: str, examples: Sequence[Example]) -> dict[str, object]:
    example = rng.choice(examples[:8] if rng.random() < 0.7 else examples)
    system = {"role": "system", "content": render_system_message(example.store, None)}
    return {
        "model": model,
        "messages": [system, *example.messages[1:]],
        "temperature": 0,
        "max_tokens": rng.choice((16, 32, 64)),
    }


def _headers(rng: random.Random, key: str, examples: Sequence[Example]) -> dict[str, str]:
    headers = {"authorization": f"Bearer {key}", "x-weir-priority": rng.choice(_CLASSES)}
    if rng.random() < 0.4:
        known = rng.choice(examples).entity_id if rng.random() < 0.8 else None
        headers["x-weir-entity"] = known or f"nobody-{rng.randrange(20)}"
    return headers
