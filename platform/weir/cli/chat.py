"""``weir chat``: talk to a model in the terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from rich.console import Console

from weir.cli.exits import CommandError
from weir.cli.gateway import require_running
from weir.cli.state import State
from weir.cli.summary import desk_messages
from weir.settings import Settings, SettingsError, load_settings

_HELP = "/reset starts over, /exit ends (so does Ctrl-D)"


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """The flags of ``weir chat``. ``system`` None: what suits the model; empty: none."""

    model: str | None
    system: str | None
    message: str | None
    url: str | None
    max_tokens: int


class Talk:
    """One conversation with one model over the OpenAI API."""

    def __init__(self, client: httpx.Client, model: str, system: str, max_tokens: int) -> None:
        self.model = model
        self._client = client
        self._max_tokens = max_tokens
        self._head = [{"role": "system", "content": system}] if system else []
        self._turns: list[dict[str, str]] = []

    def reset(self) -> None:
        """Forget all but the system message."""
        self._turns.clear()

    def ask(self, question: str) -> Iterator[str]:
        """The answer, piece by piece. It joins the conversation once it is complete.

        Raises:
            CommandError: the gateway answers with an error or breaks off.
        """
        asked = {"role": "user", "content": question}
        body = {
            "model": self.model,
            "messages": [*self._head, *self._turns, asked],
            "max_tokens": self._max_tokens,
            "stream": True,
        }
        answer = []
        try:
            with self._client.stream("POST", "/chat/completions", json=body) as response:
                _raise_for_error(response)
                for piece in _pieces(response.iter_lines()):
                    answer.append(piece)
                    yield piece
        except httpx.HTTPError as error:
            raise CommandError(f"the connection to the gateway failed: {error!r}") from None
        self._turns += [asked, {"role": "assistant", "content": "".join(answer)}]


def chat(options: ChatOptions, state: State) -> None:
    """Answer one message, or talk until the person leaves.

    Raises:
        CommandError: no platform, no key, or an error from the gateway.
    """
    url, models, settings = _where(options, state)
    key = os.environ.get("WEIR_API_KEY") or (state.secrets().demo_key if settings else None)
    if key is None:
        raise CommandError("no key for this gateway", hint="set WEIR_API_KEY")
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=600, trust_env=False) as client:
        model = options.model or next(iter(models or _listed_models(client)))
        system = _system(options, settings, model)
        talk = Talk(client, model, system, options.max_tokens)
        if options.message is not None:
            _print_answer(talk, options.message)
        else:
            _converse(talk, system)


def _where(options: ChatOptions, state: State) -> tuple[str, tuple[str, ...], Settings | None]:
    """The API's base URL, the models if they are known, and the settings of our own platform."""
    if options.url:
        base = options.url.rstrip("/")
        return (base if base.endswith("/v1") else f"{base}/v1"), (), None
    platform = require_running(state)
    try:
        settings = load_settings("laptop", state.settings_file)
    except SettingsError:
        settings = None
    return f"{platform.url}/v1", platform.models, settings


def _listed_models(client: httpx.Client) -> list[str]:
    try:
        response = client.get("/models")
        _raise_for_error(response)
        return [str(model["id"]) for model in response.json()["data"]] or ["none"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"the gateway does not list its models: {error!r}") from None


def _system(options: ChatOptions, settings: Settings | None, model: str) -> str:
    """The models that ship with weir know a store's support desk: they get one to speak for."""
    if options.system is not None:
        return options.system
    served = settings.model(model) if settings else None
    if served is None or not served.source.startswith("builtin:"):
        return ""
    return desk_messages()[0]["content"]


def _raise_for_error(response: httpx.Response) -> None:
    if response.status_code < 400:
        return
    text = response.read().decode("utf-8", "replace")
    try:
        message = str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = text[:300]
    raise CommandError(f"{response.status_code}: {message}")


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    """The text of the server-sent events of a chat completion."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event: dict[str, Any] = json.loads(data)
        if "error" in event:
            raise CommandError(str(event["error"].get("message", event["error"])))
        for choice in event.get("choices") or ():
            if piece := choice.get("delta", {}).get("content"):
                yield piece


def _print_answer(talk: Talk, question: str) -> None:
    try:
        for piece in talk.ask(question):
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:
        sys.stdout.write("\n")


def _converse(talk: Talk, system: str) -> None:
    console = Console(stderr=True, highlight=False)
    if system:
        console.print(system, style="dim", markup=False)
    console.print(f"{talk.model}: {_HELP}", style="dim", markup=False)
    person = sys.stdin.isatty()
    if person:
        import readline  # noqa: F401  (line editing and history for input())
    while True:
        try:
            question = input("> " if person else "").strip()
        except EOFError:
            return
        if question in ("/exit", "/quit"):
            return
        if question == "/reset":
            talk.reset()
            continue
        if not question:
            continue
        try:
            _print_answer(talk, question)
        except KeyboardInterrupt:
            console.print("(stopped)", style="dim")
        except CommandError as error:
            if not person:
                raise
            console.print(error.message, style="red", markup=False)
