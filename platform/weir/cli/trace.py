"""``weir trace``: one request of the running platform, step by step."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from weir.cli.exits import CommandError, ExitCode

#: The platform's own token, for a gateway that was not started here.
TOKEN_VARIABLE = "WEIR_INTERNAL_TOKEN"
_BAR_WIDTH = 24
_NAME_WIDTH = 34
_PAGE = "/weir/traces"
#: Several gateways answer in turn, each for itself: so often each is asked on average.
_ROUNDS = 4


def trace(
    request: Annotated[
        str | None,
        typer.Argument(help="x-request-id of its answer, or its trace id; left out: the newest."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help=f"Another gateway; the platform's token in {TOKEN_VARIABLE}."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show where a request's time went; without an id, the requests that are kept."""
    found = _find(request, url)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for held in found["traces"]:
        typer.echo("\n".join(draw(held)) if request is not None else _line(held))


def _find(request: str | None, url: str | None) -> dict[str, Any]:
    """What the gateways' page says.

    Raises:
        CommandError: no gateway answers, traces are off, or none has the request.
    """
    from weir.cli.gateway import ask_gateway

    url, token = _gateway(url)
    page = _PAGE if request is None else f"{_PAGE}?id={quote(request, safe='')}"
    asked, most = 0, 1
    while asked < most:
        body = ask_gateway(url, page, token)
        if body.get("traces") or request is None:
            return body
        asked, gateways = asked + 1, int(body.get("gateways") or 1)
        most = _ROUNDS * gateways if gateways > 1 else 1
    raise CommandError(
        f"no trace of {request!r} is kept",
        hint="tracing.sample_ratio says how many requests are kept, tracing.recent for how long",
    )


def _gateway(url: str | None) -> tuple[str, str]:
    """Where to ask, and with which token."""
    if url is not None:
        token = os.environ.get(TOKEN_VARIABLE, "")
        if not token:
            raise CommandError(f"{TOKEN_VARIABLE} is not set", ExitCode.USAGE)
        return url.rstrip("/").removesuffix("/v1"), token
    from weir.cli.gateway import require_running
    from weir.cli.state import State

    state = State.from_environment()
    return require_running(state).url, state.secrets().internal_token


def draw(held: Mapping[str, Any]) -> Iterator[str]:
    """The trace as a tree: name, start and duration in milliseconds, a bar, what else is known."""
    yield f"trace {held['trace_id']}, request {held['request_id']}, tenant {held['tenant']}"
    yield f"{held['began']}, kept because {held['kept']}" + _error(held)
    yield ""
    spans = held["spans"]
    total_ms = max(spans[0]["duration_ms"], 0.001)
    known = {span["span_id"] for span in spans}
    below: dict[str, list[Mapping[str, Any]]] = {}
    for span in spans:
        parent = span["parent_id"] if span["parent_id"] in known else ""
        below.setdefault(parent, []).append(span)

    def lines(parent: str, depth: int) -> Iterator[str]:
        for span in below.get(parent, ()):
            name = ("  " * depth + span["name"])[:_NAME_WIDTH].ljust(_NAME_WIDTH)
            times = f"{span['start_ms']:9.1f} {span['duration_ms']:9.1f} ms"
            yield f"{name}{times}  {_bar(span, total_ms)}  {_notes(span)}".rstrip()
            yield from lines(span["span_id"], depth + 1)

    yield from lines("", 0)


def _bar(span: Mapping[str, Any], total_ms: float) -> str:
    start_ms, took_ms = float(span["start_ms"]), float(span["duration_ms"])
    start = min(_BAR_WIDTH - 1, int(start_ms / total_ms * _BAR_WIDTH))
    length = max(1, round(took_ms / total_ms * _BAR_WIDTH))
    return (" " * start + "━" * min(length, _BAR_WIDTH - start)).ljust(_BAR_WIDTH)


def _notes(span: Mapping[str, Any]) -> str:
    told = span["attributes"]
    notes = [f"error: {span['error']}"] if span["error"] else []
    if "weir.spill" in told:
        notes.append(f"spilled: {told['weir.spill']}")
    if "gen_ai.usage.input_tokens" in told:
        cached = told["gen_ai.usage.cache_read.input_tokens"]
        notes.append(
            f"{told['gen_ai.usage.input_tokens']} tokens in ({cached} cached), "
            f"{told['gen_ai.usage.output_tokens']} out"
        )
    if "weir.features.outcome" in told:
        notes.append(told["weir.features.outcome"])
    if "weir.replica" in told:
        notes.append(told["weir.replica"])
    if "weir.decision.reason" in told:
        notes.append(_decision(told))
    return "; ".join(notes)


def _decision(told: Mapping[str, Any]) -> str:
    reason = str(told["weir.decision.reason"])
    best = told.get("weir.decision.best", ())
    more = int(told.get("weir.decision.candidates", 0)) - len(best)
    shown = ", ".join(best) + (f", {more} more" if more > 0 else "")
    return f"{reason}: {shown}" if shown else reason


def _line(held: Mapping[str, Any]) -> str:
    return (
        f"{held['began']}  {held['request_id']:32}  {held['duration_ms']:9.1f} ms  "
        f"{held['kept']:8}  {held['tenant']}  {held['name']}" + _error(held)
    )


def _error(held: Mapping[str, Any]) -> str:
    return f", error: {held['error']}" if held["error"] else ""
