"""The dashboard in headless Chromium, beside a real database and a real Redis with recorded boards:
what it shows to whom, what it says when something is wrong, and that everybody can use it."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Response, Route, expect, sync_playwright
from redis import Redis

from deployments.control.building import build_control
from deployments.live import BOARDS, encode
from deployments.redis_server import RedisServer
from tests.deployments.control.boards import Told
from tests.deployments.control.world import OPERATOR, START_S, free_port, settings_beside
from weir.database import open_database
from weir.settings.tenants import TenantFields
from weir.tenancy import Role
from weir.tenancy.database import TenantStore
from weir.tenancy.fields import KeyFields

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    _CHROMIUM is None and "CI" not in os.environ,
    reason="Debian's chromium is not installed (.ci/run installs it)",
)
_WIDTHS = (360, 820, 1440)
_TIMEOUT_MS = 30_000


@dataclass(frozen=True)
class Site:
    """``keys``: of the tenant acme, by role."""

    url: str
    keys: dict[Role, str]


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, redis_server: RedisServer
) -> Iterator[Site]:
    """The control process' application on a port, at a time that stands still."""
    file = tmp_path_factory.mktemp("page") / "weir.db"
    shutil.copy(empty_database, file)
    url = f"sqlite:///{file}"
    engine = open_database(url)
    store = TenantStore(engine, lambda: START_S)
    fields = TenantFields.model_validate(
        {"quotas": {"requests_per_minute": 60}, "budget": {"usd_per_month": "5.00"}}
    )
    store.create_tenant("test", "acme", fields)
    store.create_tenant("test", "other", TenantFields())
    keys = {
        role: store.create_key("test", "acme", KeyFields(name=role.value, role=role)).secret
        for role in Role
    }
    environment = {"WEIR_DATABASE_URL": url, "WEIR_INTERNAL_TOKEN": "internal"}
    settings = settings_beside(redis_server.url)
    app = build_control(settings, environment, Path("/nowhere"), lambda: START_S, background=False)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    _until(lambda: server.started)
    yield Site(f"http://127.0.0.1:{port}", keys)
    server.should_exit = True
    thread.join(10)
    engine.dispose()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=_CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield made
        made.close()


@pytest.fixture
def told(redis: Redis) -> None:
    """Two gateways have told something."""
    for name in ("g0", "g1"):
        board = Told(name, int(START_S * 1000)).board()
        redis.hset(BOARDS, name, encode(board))


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """A desktop's page, not signed in. Fails on any error of a script or of the policy."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    made = context.new_page()
    made.set_default_timeout(_TIMEOUT_MS)
    wrong: list[str] = []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("console", lambda said: wrong.append(said.text) if _is_wrong(said) else None)
    made.goto(f"{site.url}/dashboard")
    yield made
    context.close()
    assert wrong == []


def _is_wrong(said: Any) -> bool:
    return said.type == "error" and "Failed to load resource" not in said.text


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it has not come to be")


def _sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def _shown(page: Page) -> None:
    expect(page.get_by_role("heading", name="SLO now")).to_be_visible(timeout=_TIMEOUT_MS)


@pytest.mark.usefixtures("told")
def test_the_operator_sees_everything(page: Page, site: Site) -> None:
    _sign_in(page, OPERATOR)
    _shown(page)
    for name in ("Cost", "Replicas", "Tenants", "Queue", "Spills and moves"):
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    tenants = page.get_by_role("table", name="Tenants")
    expect(tenants.get_by_role("rowheader")).to_have_text(["acme", "other"])
    replicas = page.get_by_role("table", name="Replicas of big")
    expect(replicas.get_by_role("row")).to_have_count(3)
    expect(replicas).to_contain_text("42 %")
    expect(page.locator("#queues")).to_contain_text("6 waiting")
    expect(page.locator("#spills")).to_contain_text("16 requests")
    expect(page.locator(".tiles")).to_contain_text("$5.00/h")
    expect(page.locator("#slo")).to_contain_text("first token ≤ 2.00 s")
    expect(page.locator("#slo")).to_contain_text("90.0 % (360 of 400)")
    expect(page.locator("figure.chart canvas")).to_have_count(4)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("role", [Role.READ_ONLY, Role.TENANT_ADMIN])
def test_a_tenant_sees_itself_only(page: Page, site: Site, role: Role) -> None:
    asked: list[str] = []
    page.on("response", lambda answer: asked.append(answer.url))
    _sign_in(page, site.keys[role])
    _shown(page)
    expect(page.get_by_role("heading", name="Spending")).to_be_visible()
    expect(page.locator("#cost")).to_contain_text("$5.00 of $5.00 left")
    expect(page.locator("#cost")).to_contain_text("60 of 60 left")
    for name in ("Cost", "Replicas", "Tenants", "Queue"):
        expect(page.get_by_role("heading", name=name, exact=True)).to_have_count(0)
    page.get_by_role("button", name="g0-acme-plain").click()
    expect(page.locator("#request")).to_contain_text("placed on r1a2b3c4")
    assert not re.search(r"\bother\b", page.locator("body").inner_text())
    kept = [url for url in asked if "/v1/" in url]
    assert all("/v1/tenant/" in url or url.endswith("/admin/v1/live") for url in kept), kept


@pytest.mark.usefixtures("told")
def test_a_request_is_followed(page: Page, site: Site) -> None:
    _sign_in(page, OPERATOR)
    _shown(page)
    page.get_by_label("Request id").fill("g1-other-moved")
    page.keyboard.press("Enter")
    followed = page.locator("#request")
    expect(followed).to_contain_text("the replica went away; it goes on elsewhere")
    expect(followed).to_contain_text("placed on r5d6e7f8")
    weighed = followed.get_by_role("region", name="Replicas that were weighed for r1a2b3c4")
    expect(weighed.get_by_role("row")).to_have_count(3)
    expect(weighed).to_contain_text("1,900")
    assert page.url.endswith("#request=g1-other-moved")
    page.get_by_label("Request id").fill("nobody's")
    page.keyboard.press("Enter")
    expect(followed).to_contain_text("There is no such request")
    page.get_by_role("button", name="Close").click()
    expect(followed).to_have_count(0)


@pytest.mark.usefixtures("told")
def test_the_key_stays_in_the_tab_until_it_signs_out(page: Page, site: Site) -> None:
    seen: list[Response] = []
    page.on("response", lambda answer: seen.append(answer))
    _sign_in(page, OPERATOR)
    _shown(page)
    page.reload()
    _shown(page)
    assert not any(OPERATOR in each.url for each in seen)
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("localStorage.length") == 0
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    page.reload()
    expect(page.get_by_label("API key")).to_be_visible()


def test_a_wrong_key_is_told_plainly(page: Page, site: Site) -> None:
    _sign_in(page, "weir_nobody_has-this")
    expect(page.get_by_role("alert")).to_contain_text("key")
    assert page.evaluate("sessionStorage.length") == 0
    assert page.get_by_label("API key").get_attribute("aria-invalid") == "true"


@pytest.mark.usefixtures("told")
def test_a_key_that_is_revoked_signs_out(page: Page, site: Site) -> None:
    _sign_in(page, OPERATOR)
    _shown(page)
    refused = {"error": {"message": "This key is not valid.", "type": "authentication_error"}}
    page.route("**/live", lambda route: route.fulfill(status=401, json=refused))
    expect(page.get_by_role("alert")).to_contain_text("not valid any more", timeout=_TIMEOUT_MS)
    expect(page.get_by_label("API key")).to_be_visible()


@pytest.mark.usefixtures("told")
def test_a_control_process_that_is_away_is_told_and_the_last_figures_stay(
    page: Page, site: Site
) -> None:
    _sign_in(page, OPERATOR)
    _shown(page)

    def away(route: Route) -> None:
        route.fulfill(status=503, json={"error": {"message": "The admin API is not there now."}})

    page.route("**/live", away)
    expect(page.get_by_role("alert")).to_contain_text("not there now", timeout=_TIMEOUT_MS)
    expect(page.get_by_role("alert")).to_contain_text("The figures are from")
    expect(page.locator(".state")).to_contain_text("no answer")
    expect(page.get_by_role("table", name="Tenants")).to_be_visible()
    page.unroute("**/live")
    expect(page.get_by_role("alert")).to_have_count(0, timeout=_TIMEOUT_MS)


def test_without_gateways_and_requests_it_says_so(page: Page, redis: Redis, site: Site) -> None:
    _sign_in(page, OPERATOR)
    _shown(page)
    body = page.locator("body")
    expect(body).to_contain_text("No gateway has told anything yet")
    expect(body).to_contain_text("No tenant has asked anything")
    expect(body).to_contain_text("No replica is up")
    expect(body).to_contain_text("Nothing waits")
    expect(body).to_contain_text("No request has ended")


@pytest.mark.usefixtures("told")
def test_pause_stops_the_looks(page: Page, site: Site) -> None:
    _sign_in(page, OPERATOR)
    _shown(page)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".state")).to_contain_text("paused")
    page.wait_for_timeout(500)
    looks: list[str] = []
    page.on("request", lambda request: looks.append(request.url))
    page.wait_for_timeout(5000)
    assert looks == []
    with page.expect_request("**/admin/v1/live"):
        page.get_by_role("button", name="Go on").click()


@pytest.mark.usefixtures("told")
def test_a_keyboard_is_enough(page: Page, site: Site) -> None:
    page.keyboard.press("Tab")
    page.keyboard.type(OPERATOR)
    page.keyboard.press("Enter")
    _shown(page)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the figures")).to_be_focused()
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent.trim().slice(0, 14)"))
        if page.evaluate("document.activeElement.matches('#requests .id')"):
            break
    assert {"Pause", "Sign out", "acme"} <= reached
    page.keyboard.press("Enter")
    expect(page.locator("#request .answer")).to_be_focused()
    expect(page.locator("#request")).to_contain_text("arrived from")


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", _WIDTHS)
def test_axe_finds_nothing(browser: Browser, site: Site, scheme: Any, width: int) -> None:
    size: Any = {"width": width, "height": 900}
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(_TIMEOUT_MS)
    page.goto(f"{site.url}/dashboard")
    expect(page.get_by_label("API key")).to_be_visible()
    assert _violations(page) == []
    _sign_in(page, OPERATOR)
    _shown(page)
    page.get_by_role("button", name="g0-other-move").click()
    expect(page.locator("#request")).to_contain_text("placed on")
    page.get_by_text("As a table").first.click()
    expect(page.locator("details table")).to_be_visible()
    assert _violations(page) == []
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width, "nothing is wider than the screen"
    context.close()


def _violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {[node['html'][:120] for node in each['nodes'][:3]]}" for each in found]
