"""``weir pools``: the pools of the models that run, and what their replicas do."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir.cli.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from rich.table import Table

    from weir.cli.gateway import Deployment, Replica
    from weir.cli.state import State

pools_app = typer.Typer(
    help="Pools of the running models: a table; and roles that change for a while.",
    epilog="Example: [bold]weir pools set llama:answers --count 1 prefill --for 10m[/]",
)
ROLES = ("mixed", "prefill", "decode")
_NOTHING = "–"
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_ANSWER_S = 60.0


@pools_app.callback(invoke_without_command=True)
def show_pools(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show pools, roles, replicas, KV use and load."""
    if context.invoked_subcommand is not None:
        return
    pools = _pools(_state())
    if as_json:
        typer.echo(json.dumps([asdict(pool) for pool in pools]))
    elif not pools:
        typer.echo("No model that runs has pools.")
    else:
        from rich.console import Console

        Console(file=sys.stdout, highlight=False).print(_table(pools))


@pools_app.command("set", epilog="Example: [bold]weir pools set llama:answers a1b2 prefill[/]")
def set_role(
    target: Annotated[str, typer.Argument(help="MODEL, or MODEL:POOL.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REPLICA] ROLE", help="Its id, or how that begins; the new role."),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=0, help="So many of the replicas, instead of one by its id.")
    ] = None,
    split: Annotated[
        int | None,
        typer.Option(min=1, help="So many only compute prompts, and all others only answer."),
    ] = None,
    for_: Annotated[
        str | None, typer.Option("--for", help="For so long: 90s, 10m, 2h. Left out: until told.")
    ] = None,
) -> None:
    """Have replicas only compute prompts, or only answer, and back; streams go on elsewhere."""
    model, _, pool = target.partition(":")
    replica, role = _words(words or (), count, split)
    state = _state()
    body: dict[str, Any] = {"model": model}
    if role is not None:
        body["role"] = role
    if pool:
        body["pool"] = pool
    if for_ is not None:
        body["for_s"] = parse_duration(for_)
    if replica is not None:
        body["replica"] = _find(_pools(state), model, pool, replica).replica_id
    elif split is not None:
        body["split"] = split
    else:
        body["count"] = count
    changes = _ask(state, body)["changes"]
    for change in changes:
        typer.echo(f"{change['replica_id']} is {change['role']}")
    if not changes:
        typer.echo("nothing to change")


def _words(
    words: Sequence[str], count: int | None, split: int | None
) -> tuple[str | None, str | None]:
    """Replica, if one is named, and role, if there is one.

    Raises:
        CommandError: it is neither one replica nor a count nor a split, or no role.
    """
    if split is not None and count is None and not words:
        return None, None
    if split is not None or len(words) != (2 if count is None else 1):
        raise CommandError(
            "either a replica and a role, or --count N and a role, or --split N alone",
            ExitCode.USAGE,
            hint="weir pools set MODEL[:POOL] REPLICA ROLE",
        )
    role = words[-1]
    if role not in ROLES:
        raise CommandError(f"no role {role!r}; there are: {', '.join(ROLES)}", ExitCode.USAGE)
    return (words[0] if count is None else None), role


def parse_duration(text: str) -> float:
    """Seconds of ``90s``, ``10m``, ``2h`` or ``1d``.

    Raises:
        CommandError: it is nothing of that kind.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise CommandError(f"--for: {text!r} is not like 90s, 10m or 2h", ExitCode.USAGE)
    return float(found[1]) * _UNITS_S[found[2]]


def _pools(state: State) -> list[Deployment]:
    from weir.cli.gateway import fetch_status, parse_deployments, require_running

    body = fetch_status(state, require_running(state))
    return [deployment for deployment in parse_deployments(body) if deployment.pool]


def _find(pools: Iterable[Deployment], model: str, pool: str, wanted: str) -> Replica:
    known = [
        replica
        for deployment in pools
        if deployment.model == model and pool in ("", deployment.pool)
        for replica in deployment.replicas
        if replica.replica_id
    ]
    found = [replica for replica in known if replica.replica_id.startswith(wanted)]
    exact = [replica for replica in found if replica.replica_id == wanted]
    if len(exact or found) == 1:
        return (exact or found)[0]
    names = ", ".join(replica.replica_id for replica in known) or "none"
    problem = "several replicas begin like" if found else "there is no replica"
    raise CommandError(f"{problem} {wanted}", ExitCode.USAGE, hint=f"there are: {names}")


def _ask(state: State, body: dict[str, Any]) -> dict[str, Any]:
    import httpx

    from weir.cli.gateway import require_running

    platform = require_running(state)
    headers = {"authorization": f"Bearer {state.secrets().internal_token}"}
    try:
        with httpx.Client(timeout=_ANSWER_S, trust_env=False) as client:
            answer = client.post(f"{platform.url}/weir/roles", json=body, headers=headers)
            told: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise CommandError(f"the gateway at {platform.url} does not answer: {error}") from None
    if answer.status_code != 200:
        raise CommandError(str((told.get("error") or {}).get("message") or told))
    return told


def _table(pools: Sequence[Deployment]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("pool", "replica", "role"):
        table.add_column(heading, no_wrap=True)
    for heading in ("KV use", "running", "waiting", "tokens left"):
        table.add_column(heading, justify="right", no_wrap=True)
    for pool in pools:
        up = [replica for replica in pool.replicas if replica.state == "RUNNING"]
        role = next((replica.pool_role for replica in up if replica.pool_role), _NOTHING)
        count = f"{len(up)} of {len(pool.replicas)}"
        table.add_row(Text(f"{pool.model}:{pool.pool}", "bold"), count, role, *_load(up))
        for replica in pool.replicas:
            told = replica.replica_id or replica.state.lower()
            table.add_row("", told, _role(replica), *_load([replica]))
    return table


def _role(replica: Replica) -> str:
    """With its end, where that is known."""
    if replica.role == replica.pool_role or replica.role_until is None:
        return replica.role or _NOTHING
    return f"{replica.role} until {datetime.fromtimestamp(replica.role_until):%H:%M:%S}"


def _load(replicas: Sequence[Replica]) -> list[str]:
    """KV use on average; requests and tokens, summed up."""
    used = [replica.kv_use for replica in replicas if replica.kv_use is not None]
    shown = [f"{sum(used) / len(used):.0%}" if used else _NOTHING]
    for field in ("running", "waiting", "outstanding_tokens"):
        known = [value for replica in replicas if (value := getattr(replica, field)) is not None]
        shown.append(str(sum(known)) if known else _NOTHING)
    return shown


def _state() -> State:
    from weir.cli.state import State

    return State.from_environment()
