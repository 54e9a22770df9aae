"""What every probe of a Python client shares. Standard library only: probes run in environments
that do not have weir.

A probe is a function of the server. It returns when the client did what it should, or raises:
``NotApplicable`` where the client has no such thing, ``ModelsFaultError`` where the server did its
part and the small model did not, anything else where it failed. One JSON line per probe is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

MARK = "WEIR-CLIENT "
PROBE_LIMIT_S = 90
IDLE_LIMIT_S = 15
QUESTION = "What are your opening hours?"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
LONG = 1500
"""Tokens asked for by an answer that the client abandons."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"order": {"type": "string", "enum": ["first", "second"]}},
    "required": ["order"],
    "additionalProperties": False,
}
ORDERS = ("first", "second")


class NotApplicable(Exception):  # noqa: N818 - not an error: the client has no such thing
    """The message is the reason."""


class ModelsFaultError(Exception):
    """The server did its part; the message says what the model did not do."""


@dataclass(frozen=True)
class Server:
    """The platform under test. ``url`` has no path."""

    url: str
    key: str
    model: str
    metrics_key: str

    @property
    def v1(self) -> str:
        """Base URL for clients of OpenAI's API."""
        return f"{self.url}/v1"


Raised = TypeVar("Raised", bound=Exception)
Probe = Callable[[Server], Any]


def server_from_environment() -> Server:
    """The server that the bench tells us in WEIR_URL, WEIR_KEY, WEIR_MODEL, WEIR_METRICS_KEY."""
    env = os.environ
    metrics_key = env.get("WEIR_METRICS_KEY", "")
    return Server(env["WEIR_URL"], env["WEIR_KEY"], env["WEIR_MODEL"], metrics_key)


def run(probes: Mapping[str, Probe]) -> None:
    """Run the probes named on the command line (default: all) and print an outcome for each."""
    server = server_from_environment()
    for name in sys.argv[1:] or list(probes):
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(PROBE_LIMIT_S)
        outcome, detail = _outcome(probes[name], server)
        signal.alarm(0)
        line = json.dumps({"probe": name, "outcome": outcome, "detail": detail})
        print(f"\n{MARK}{line}", flush=True)


def _outcome(probe: Probe, server: Server) -> tuple[str, str]:
    try:
        if inspect.iscoroutinefunction(probe):
            asyncio.run(probe(server))
        else:
            probe(server)
    except NotApplicable as reason:
        return "not applicable", str(reason)
    except ModelsFaultError as fault:
        return "model", str(fault)
    except Exception as error:  # noqa: BLE001 - a process's edge: it becomes the outcome
        if os.environ.get("WEIR_TRACE"):
            import traceback

            traceback.print_exc()
        return "fails", first_line(error)
    return "works", ""


def first_line(error: BaseException) -> str:
    """Type and first line of an error, short enough for a table's note."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"[:300]


def _too_long(number: int, _: object) -> None:
    raise TimeoutError(f"not done after {PROBE_LIMIT_S} s")


def check(condition: object, message: object) -> None:
    """Fail with ``message`` unless the condition holds."""
    if not condition:
        raise AssertionError(str(message)[:300])


def check_call(name: str, arguments: str | Mapping[str, Any]) -> None:
    """A call of the tool with arguments that fit ``SCHEMA``."""
    check(name == "cancel_order", f"tool {name!r}")
    found = json.loads(arguments) if isinstance(arguments, str) else arguments
    check(found.get("order") in ORDERS, f"arguments {found!r}")


@contextlib.contextmanager
def abandoned(server: Server) -> Iterator[None]:
    """The block starts an answer of ``LONG`` tokens and leaves it. Afterwards no engine may go on
    with it: soon nothing runs, and less than half of the tokens were made."""
    if not server.metrics_key:
        raise NotApplicable("needs a key that may read /metrics (--metrics-key)")
    before = _metric(server, "vllm:generation_tokens_total")
    yield
    deadline_s = time.monotonic() + IDLE_LIMIT_S
    while _metric(server, "vllm:num_requests_running") > 0:
        check(time.monotonic() < deadline_s, f"the engine still runs {IDLE_LIMIT_S} s later")
        time.sleep(0.2)
    made = _metric(server, "vllm:generation_tokens_total") - before
    check(made < LONG / 2, f"{made:.0f} of {LONG} tokens were made though the client had left")


def _metric(server: Server, name: str) -> float:
    headers = {"authorization": f"Bearer {server.metrics_key}"}
    request = urllib.request.Request(f"{server.url}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read().decode()
    values = [
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith((f"{name}{{", f"{name} "))
    ]
    check(values, f"/metrics has no {name}")
    return sum(values)


def expect(kind: type[Raised], call: Callable[[], Any]) -> Raised:
    """``call`` raises an error of this kind; any other goes through and is the outcome."""
    try:
        call()
    except kind as raised:
        return raised
    raise AssertionError(f"{kind.__name__} expected, the call went through")
