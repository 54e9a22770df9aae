"""Pictures of ``/dashboard`` and traces of one real run, for the documents.

``python -m load_tests.page_pictures --out docs/pictures``: starts the laptop's platform with two
gateways and three tenants on free ports, asks it for a while (one tenant more often than its quota
allows), kills a replica's process under long answers, and takes pictures in headless Chromium. Then
it prints what ``weir trace`` says of a request with features, and of an answer that moved. Four
minutes.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from playwright.sync_api import Browser, Page, expect, sync_playwright

from load_tests.features.data import FeastWriter
from load_tests.servers import free_port, unwind_on_sigterm
from load_tests.servers.accounting import role_of
from weir.samples.corpus import Example, requests
from weir.samples.render import render_system_message
from weir.settings import load_settings
from weir.tenancy import hash_key

_WEIR = [sys.executable, "-m", "weir.cli.main"]
_MODEL = "weir-teacher"
_CLASSES = ("interactive", "interactive", "standard", "batch")
#: Nobody's customers have generated features: these tenants want the model all the same.
_TEACHER = {"forbid": ["long-tail"]}
#: Tenants with what bounds them; the first asks most.
_TENANTS: dict[str, dict[str, Any]] = {
    "acme": {"quotas": {"requests_per_minute": 500}, "budget": {"usd_per_month": 0.2}},
    "bank": {"quotas": {"output_tokens_per_minute": 90_000}, "fallback": _TEACHER},
    "shop": {"quotas": {"concurrent_requests": 64}, "fallback": _TEACHER},
}
_PATIENCE_MS = 60_000
#: Until a long answer has begun, and has not ended.
_UNDER_WAY_S = 2.0
#: Longer than a gateway keeps a customer's features.
_CACHED_S = 1.5


@dataclass(frozen=True)
class Run:
    """A platform that is up."""

    url: str
    home: Path
    examples: Sequence[Example]

    def weir(self, *arguments: str) -> str:
        """What a command prints."""
        command = [*_WEIR, *arguments]
        environment = {**os.environ, "WEIR_HOME": str(self.home)}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        return done.stdout.decode()


def settings_tree() -> dict[str, Any]:
    """The laptop's models, priced; traces of answers that move, and of requests that say so, are
    kept in memory."""
    models = load_settings("laptop", None).model_dump(mode="json")["models"]
    price = {"input_usd_per_million_tokens": 0.15, "output_usd_per_million_tokens": 0.6}
    for model in models:
        model["price"] = {"replica_usd_per_hour": 0.05, **price}
    return {
        "models": models,
        "server": {"port": free_port()},
        "redis": {"port": free_port()},
        "gateway": {"replicas": 2},
        "tracing": {"recent": 500, "sample_ratio": 0.0, "always": ["moved"]},
        "tenants": [
            {"id": name, "key_sha256": [hash_key(_key(name))], **bounds}
            for name, bounds in _TENANTS.items()
        ],
    }


@contextmanager
def platform() -> Iterator[Run]:
    """``weir up`` with customers in its feature store, and ``weir down`` afterwards."""
    with tempfile.TemporaryDirectory(prefix="weir-page-") as folder:
        home = Path(folder)
        tree = settings_tree()
        config = home / "settings-of-the-run.yaml"
        config.write_text(yaml.safe_dump(tree))
        url = f"http://127.0.0.1:{tree['server']['port']}"
        run = Run(url, home, list(requests(3, 60, "heldout", customers=24)))
        try:
            run.weir("up", "--config", str(config))
            _write_customers(run)
            yield run
        finally:
            run.weir("down", "--now")


def _write_customers(run: Run) -> None:
    people = {each.customer.customer_id: each.customer for each in run.examples}
    redis_url = json.loads((run.home / "platform.json").read_text())["redis_url"]
    for tenant in _TENANTS:
        writer = FeastWriter(redis_url, run.home / f"features-{tenant}")
        writer.write_customers(list(people.values()), dt.datetime.now(dt.UTC), tenant)


def send(run: Run, for_s: float, clients: int) -> None:
    """Conversations of all tenants and classes; one in ten is for a long answer."""
    until_s = time.monotonic() + for_s
    names = list(_TENANTS)

    def client(number: int) -> None:
        rng = random.Random(number)
        with httpx.Client(base_url=run.url, timeout=120) as http:
            while time.monotonic() < until_s:
                tenant = names[min(int(rng.expovariate(1.2)), len(names) - 1)]
                tokens = 400 if rng.random() < 0.1 else rng.choice((16, 32, 64))
                wanted = {"x-weir-priority": rng.choice(_CLASSES)}
                _ask(run, http, rng.choice(run.examples), tenant, tokens, **wanted)
                time.sleep(rng.expovariate(4.0))

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(client, range(clients)))


def _ask(
    run: Run, http: httpx.Client, example: Example, tenant: str, tokens: int, **headers: str
) -> str:
    """The answer's ``x-request-id``."""
    system = {"role": "system", "content": render_system_message(example.store, None)}
    body = {
        "model": _MODEL,
        "messages": [system, *example.messages[1:]],
        "temperature": 0,
        "max_tokens": tokens,
        "ignore_eos": tokens > 100,
        "stream": True,
    }
    headers["authorization"] = f"Bearer {_key(tenant)}"
    if example.entity_id:
        headers["x-weir-entity"] = example.entity_id
    answer = http.post("/v1/chat/completions", json=body, headers=headers)
    return str(answer.headers.get("x-request-id", ""))


def _key(tenant: str) -> str:
    return f"weir_key-of-{tenant}"


def kill_a_replica(run: Run, streams: int = 6) -> None:
    """SIGKILL for a replica of the model that is asked, while it generates long answers; Serve
    starts another one. Returns when the answers have ended."""
    supervisor = json.loads((run.home / "platform.json").read_text())["pid"]
    (victim, *_) = (
        child
        for child in psutil.Process(supervisor).children(recursive=True)
        if role_of(" ".join(child.cmdline())) == f"replica model-{_MODEL}"
    )
    with httpx.Client(base_url=run.url, timeout=120) as http, ThreadPoolExecutor(streams) as pool:
        asked = [
            pool.submit(_ask, run, http, example, "shop", 400) for example in run.examples[:streams]
        ]
        time.sleep(_UNDER_WAY_S)
        victim.kill()
        for each in asked:
            each.result()


def moved_and_whole(run: Run) -> tuple[str, str]:
    """Ids of an answer that moved to another replica, and of one with features that is asked for
    now, when nothing else is under way."""
    # Each gateway has those that it has served.
    kept = [trace for _ in range(4) for trace in json.loads(run.weir("trace", "--json"))["traces"]]
    moved = [trace["request_id"] for trace in kept if trace["kept"] == "moved"]
    if not moved:
        raise RuntimeError("no answer moved")
    known = next(each for each in run.examples if each.entity_id)
    with httpx.Client(base_url=run.url, timeout=120) as http:
        time.sleep(_CACHED_S)
        sampled = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        return moved[0], _ask(run, http, known, "shop", 48, traceparent=sampled)


@contextmanager
def looking(run: Run) -> Iterator[tuple[Browser, Page]]:
    """A browser with the operator's page open: gateways keep what decisions weighed while somebody
    looks."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser, _signed_in(browser, run.url, run.weir("admin", "key").strip(), "light", 1440)
        browser.close()


def take_pictures(run: Run, browser: Browser, page: Page, request: str, out: Path) -> None:
    """The page as the operator sees it (light, dark, on a phone), as a tenant does, and one
    request."""
    page.screenshot(path=out / "dashboard.png", full_page=True)
    page.get_by_label("Request id").fill(request)
    page.keyboard.press("Enter")
    expect(page.locator("#request")).to_contain_text("placed on", timeout=_PATIENCE_MS)
    page.locator("#request").screenshot(path=out / "dashboard-request.png")
    operator = run.weir("admin", "key").strip()
    for name, key, scheme, width in (
        ("dashboard-dark", operator, "dark", 1440),
        ("dashboard-phone", operator, "light", 390),
        ("dashboard-tenant", _key("acme"), "light", 1440),
    ):
        other = _signed_in(browser, run.url, key, scheme, width)
        other.screenshot(path=out / f"{name}.png", full_page=width > 1000)
        other.context.close()


def _signed_in(browser: Browser, url: str, key: str, scheme: Any, width: int) -> Page:
    size: Any = {"width": width, "height": 1000}
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(_PATIENCE_MS)
    page.goto(f"{url}/dashboard")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="SLO now")).to_be_visible()
    page.wait_for_timeout(5000)  # two looks at the figures
    return page


def main() -> int:
    """Run, look, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the pictures")
    parser.add_argument("--seconds", type=float, default=75.0)
    parser.add_argument("--clients", type=int, default=12)
    arguments = parser.parse_args()
    unwind_on_sigterm()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with platform() as run, looking(run) as (browser, page):
        loud = threading.Thread(target=send, args=(run, arguments.seconds, arguments.clients))
        loud.start()
        page.wait_for_timeout(500 * arguments.seconds)
        kill_a_replica(run)
        page.wait_for_timeout(500 * arguments.seconds)
        loud.join()
        moved, whole = moved_and_whole(run)
        for request in (whole, moved):
            print(run.weir("trace", request), flush=True)
        # Beside a few clients, so that the page has something to show.
        quiet = threading.Thread(target=send, args=(run, 30.0, 4))
        quiet.start()
        page.wait_for_timeout(10_000)
        take_pictures(run, browser, page, moved, arguments.out)
        quiet.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
