"""``weir batches``: batch jobs of a running gateway, as its tenant."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import httpx
    from rich.console import Console

    from weir.cli.state import State

batches_app = typer.Typer(
    help="Batch jobs: submit a file of requests, follow it, cancel it.",
    epilog="Example: [bold]weir batches submit requests.jsonl --wait --out results.jsonl[/]",
    no_args_is_help=True,
)
_ENDED = ("completed", "failed", "expired", "cancelled")
_POLL_S = 1.0
#: An input is sent, and an output is read, within that time.
_TRANSFER_S = 600.0

UrlOption = Annotated[
    str | None, typer.Option("--url", help="Another gateway; its key in WEIR_API_KEY.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BatchArgument = Annotated[str, typer.Argument(help="The batch's id.")]


@batches_app.command("list", epilog="Example: [bold]weir batches list[/]")
def list_batches(
    limit: Annotated[int, typer.Option(min=1, max=100, help="So many, newest first.")] = 20,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tenant's batches, newest first."""
    with _client(url) as client:
        found = _asked(client, "GET", "/batches", params={"limit": limit})["data"]
    if as_json:
        typer.echo(json.dumps(found))
        return
    if not found:
        typer.echo("There are no batches.")
    for batch in found:
        typer.echo(row(batch))


@batches_app.command("show", epilog="Example: [bold]weir batches show batch_1a2b[/]")
def show_batch(batch: BatchArgument, url: UrlOption = None) -> None:
    """Print a batch as JSON, with what is wrong with its lines."""
    with _client(url) as client:
        typer.echo(json.dumps(_asked(client, "GET", f"/batches/{batch}"), indent=2))


@batches_app.command("cancel", epilog="Example: [bold]weir batches cancel batch_1a2b[/]")
def cancel_batch(batch: BatchArgument, url: UrlOption = None) -> None:
    """Stop a batch; what is computed is kept."""
    with _client(url) as client:
        typer.echo(row(_asked(client, "POST", f"/batches/{batch}/cancel")))


@batches_app.command("submit", epilog="Example: [bold]weir batches submit requests.jsonl --wait[/]")
def submit_batch(
    file: Annotated[Path, typer.Argument(help="One request in each line, as OpenAI has it.")],
    endpoint: Annotated[
        str | None, typer.Option(help="Of all requests; left out, that of the first line.")
    ] = None,
    window: Annotated[str, typer.Option(help="The completion window.")] = "24h",
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="With --wait: write the output there, errors beside it.")
    ] = None,
    url: UrlOption = None,
) -> None:
    """Upload a file and begin a batch over it; prints the batch's id."""
    from weir.cli.exits import CommandError, ExitCode

    if not file.is_file():
        raise CommandError(f"there is no file {file}", ExitCode.USAGE)
    with _client(url) as client:
        with file.open("rb") as handle:
            form = {"data": {"purpose": "batch"}, "files": {"file": (file.name, handle)}}
            uploaded = _asked(client, "POST", "/files", **form)
        body = {
            "input_file_id": uploaded["id"],
            "endpoint": endpoint or endpoint_of(file),
            "completion_window": window,
        }
        batch = _asked(client, "POST", "/batches", json=body)
        typer.echo(batch["id"])
        if wait:
            _see_to_end(client, batch, out)


def endpoint_of(file: Path) -> str:
    """The URL that the first line names.

    Raises:
        CommandError: it names none.
    """
    from weir.cli.exits import CommandError, ExitCode

    with file.open("rb") as handle:
        first = next((line for line in handle if line.strip()), b"")
    try:
        return str(json.loads(first)["url"])
    except (ValueError, KeyError, TypeError):
        raise CommandError(
            f"the first line of {file} names no url", ExitCode.USAGE, hint="give --endpoint"
        ) from None


def row(batch: dict[str, Any]) -> str:
    """A batch in one line."""
    counts = batch["request_counts"]
    done = counts["completed"] + counts["failed"]
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(batch["created_at"]))
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    told = f"{done}/{counts['total']}{failed}"
    return f"{batch['id']:<32} {batch['status']:<12} {told:<24} {made}  {batch['endpoint']}"


def follow(
    ask: Callable[[], dict[str, Any]],
    console: Console,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Show how far a batch is until it has ended; its last state."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    told = ""
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("validating", total=None)
        while True:
            batch = ask()
            counts = batch["request_counts"]
            done = counts["completed"] + counts["failed"]
            progress.update(
                task,
                description=batch["status"],
                completed=done,
                total=counts["total"] or None,
            )
            now = f"{batch['status']} {done}/{counts['total']}"
            if now != told and not console.is_terminal:
                console.print(now)
            told = now
            if batch["status"] in _ENDED:
                return batch
            sleep(_POLL_S)


def _see_to_end(client: httpx.Client, begun: dict[str, Any], out: Path | None) -> None:
    from rich.console import Console

    from weir.cli.exits import CommandError

    console = Console(stderr=True, highlight=False)
    batch = follow(lambda: _asked(client, "GET", f"/batches/{begun['id']}"), console)
    if out is not None:
        for name, path in (
            ("output_file_id", out),
            ("error_file_id", out.with_suffix(f".errors{out.suffix}")),
        ):
            if batch[name] is not None:
                _save(client, batch[name], path)
    if batch["status"] != "completed":
        errors = (batch["errors"] or {}).get("data") or []
        first = f": line {errors[0]['line']}: {errors[0]['message']}" if errors else ""
        raise CommandError(f"the batch is {batch['status']}{first}")


def _save(client: httpx.Client, file_id: str, path: Path) -> None:
    with client.stream("GET", f"/files/{file_id}/content") as answer:
        _require_good(answer)
        with path.open("wb") as handle:
            for piece in answer.iter_bytes():
                handle.write(piece)


@contextmanager
def _client(url: str | None) -> Iterator[httpx.Client]:
    """The gateway's API with the tenant's key.

    Raises:
        CommandError: no platform runs, no key is known, or the connection breaks.
    """
    import httpx

    from weir.cli.exits import CommandError
    from weir.cli.gateway import require_running
    from weir.cli.state import State

    state: State = State.from_environment()
    base = url.rstrip("/") if url else require_running(state).url
    key = os.environ.get("WEIR_API_KEY") or (None if url else state.secrets().demo_key)
    if key is None:
        raise CommandError("no key for this gateway", hint="set WEIR_API_KEY")
    base = base if base.endswith("/v1") else f"{base}/v1"
    headers = {"authorization": f"Bearer {key}"}
    try:
        with httpx.Client(
            base_url=base, headers=headers, timeout=_TRANSFER_S, trust_env=False
        ) as client:
            yield client
    except httpx.HTTPError as error:
        raise CommandError(f"the connection to the gateway failed: {error!r}") from None


def _asked(client: httpx.Client, method: str, path: str, **given: Any) -> dict[str, Any]:
    answer = client.request(method, path, **given)
    _require_good(answer)
    told: dict[str, Any] = answer.json()
    return told


def _require_good(answer: httpx.Response) -> None:
    from weir.cli.exits import CommandError

    if answer.status_code < 400:
        return
    text = answer.read().decode("utf-8", "replace")
    try:
        message = str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = text[:300]
    raise CommandError(f"{answer.status_code}: {message}")
