"""What a person needs once the platform runs: URL, key, models, a line to paste."""

from __future__ import annotations

import json
import shlex
import sys

from rich.console import Console

from weir.cli.effective import holds_key, holds_operators_key
from weir.cli.state import PlatformRecord, State, write_private
from weir.settings import Settings

ADMIN_PATH = "/admin/v1"
_PLAIN_QUESTION = [{"role": "user", "content": "Say hello in one short sentence."}]


def print_summary(state: State, settings: Settings, as_json: bool) -> None:
    """Print to stdout how to reach the platform, for people or as one JSON object."""
    platform = state.platform()
    assert platform is not None, "only called once the platform is ready"
    secrets = state.secrets()
    key = secrets.demo_key if holds_key(settings, secrets.demo_key) else None
    operators = holds_operators_key(settings, secrets.admin_key)
    admin_url = admin_address(settings, platform.url)
    if as_json:
        print(
            json.dumps(
                {
                    "url": f"{platform.url}/v1",
                    "key": key,
                    "admin_url": admin_url,
                    "admin_key": secrets.admin_key if operators else None,
                    "models": list(platform.models),
                    "seconds_to_ready": platform.seconds_to_ready,
                    "log": str(state.log_file),
                }
            )
        )
        return
    out = Console(file=sys.stdout, highlight=False)
    out.print(f"\n[bold green]weir is up[/] [dim]after {platform.seconds_to_ready:.1f} s[/]\n")
    tenants = ", ".join(tenant.id for tenant in settings.tenants)
    for label, value in (
        ("URL", f"{platform.url}/v1"),
        ("key", key or f"that of one of your tenants: {tenants}"),
        ("models", ", ".join(platform.models)),
        ("docs", f"{platform.url}/docs"),
        ("admin", f"{admin_url}{' (its key: weir admin key)' if operators else ''}"),
        ("page", f"{admin_url.removesuffix(ADMIN_PATH)}/dashboard"),
        ("log", str(state.log_file)),
    ):
        out.print(f"  [dim]{label:<7}[/]", end="")
        out.print(value, markup=False, soft_wrap=True)
    out.print("\nTry it:\n")
    out.print(f"  {curl_line(state, settings, platform, key)}", markup=False, soft_wrap=True)
    out.print("\nweir chat: talk to it   weir status: look at it   weir down: stop it")


def admin_address(settings: Settings, url: str) -> str:
    """Where the admin API is. ``url``: the platform's."""
    admin = settings.server.admin
    if admin.port is None:
        return f"{url}{ADMIN_PATH}"
    host = "127.0.0.1" if admin.host == "0.0.0.0" else admin.host
    return f"http://{host}:{admin.port}{ADMIN_PATH}"


def curl_line(state: State, settings: Settings, platform: PlatformRecord, key: str | None) -> str:
    """One line to paste. A long example request goes to a file in the state folder."""
    messages = example_messages(settings)
    body = {"model": settings.models[0].name, "messages": messages, "max_tokens": 64}
    text = json.dumps(body, ensure_ascii=False)
    if len(text) > 200:
        write_private(state.example_file, json.dumps(body, indent=2, ensure_ascii=False) + "\n")
        text = f"@{state.example_file}"
    bearer = shlex.quote(f"Authorization: Bearer {key}") if key else '"Authorization: Bearer $KEY"'
    return (
        f"curl -s {platform.url}/v1/chat/completions -H {bearer} "
        f"-H 'Content-Type: application/json' -d {shlex.quote(text)}"
    )


def example_messages(settings: Settings) -> list[dict[str, str]]:
    """A question that the first model can answer: the models that ship with weir know one desk."""
    if not settings.models[0].source.startswith("builtin:"):
        return _PLAIN_QUESTION
    return desk_messages()


def desk_messages() -> list[dict[str, str]]:
    """A store's policies, a customer's orders, and a question about one of them."""
    from weir.samples import requests

    example = next(requests(seed=1, n=1, intents=["order_status"]))
    return [{"role": m["role"], "content": m["content"]} for m in example.messages]
