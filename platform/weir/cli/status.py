"""``weir status``: deployments, replicas and their load."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from weir.cli import process
from weir.cli.exits import CommandError, ExitCode
from weir.cli.gateway import Deployment, Replica, fetch_status, parse_deployments, require_running
from weir.cli.progress import Progress, ProgressFile
from weir.cli.state import PlatformRecord, State

_COLORS = {"HEALTHY": "green", "RUNNING": "green", "UNHEALTHY": "red", "DEPLOY_FAILED": "red"}
_NOTHING = "–"


def status(state: State, as_json: bool) -> None:
    """Print the table, or one JSON object.

    Raises:
        CommandError: there is no platform, or none that is ready (NOT_RUNNING); it does not answer
            (FAILURE); or it does, and something that it needs has died (DEGRADED).
    """
    platform = _platform(state, as_json)
    died = _died(state, platform)
    try:
        body = fetch_status(state, platform)
    except CommandError as error:
        if as_json:
            print(json.dumps({"state": "failed", "url": platform.url, "died": died}))
        raise CommandError(_with_died(error.message, died), hint=error.hint) from None
    if as_json:
        condition = "degraded" if died else "running"
        print(json.dumps({"state": condition, "url": platform.url, "died": died, **body}))
    else:
        _print(platform, body)
    if died:
        raise CommandError(
            _with_died("weir answers, but not all of it is there", died),
            ExitCode.DEGRADED,
            hint="'weir down' and 'weir up' start it anew",
        )


def _platform(state: State, as_json: bool) -> PlatformRecord:
    """The platform that answers, or should; also one whose supervisor was killed."""
    try:
        return require_running(state)
    except CommandError:
        record, platform = state.supervisor(), state.platform()
        if platform is not None and record is not None and process.family(record):
            return platform
        _say_not_ready(state, as_json)
        raise


def _died(state: State, platform: PlatformRecord) -> list[str]:
    parts = {"the supervisor": state.supervisor(), **platform.parts}
    return [name for name, record in parts.items() if process.find(record) is None]


def _with_died(message: str, died: list[str]) -> str:
    return f"{message} (died: {', '.join(died)})" if died else message


def _print(platform: PlatformRecord, body: dict[str, Any]) -> None:
    deployments = parse_deployments(body)
    console = Console(file=sys.stdout, highlight=False)
    console.print(_headline(platform, body), soft_wrap=True)
    console.print(_table(deployments))
    for deployment in deployments:
        if deployment.message and deployment.status != "HEALTHY":
            console.print(f"{deployment.name}: {deployment.message}", markup=False)


def _say_not_ready(state: State, as_json: bool) -> None:
    starting = process.find(state.supervisor()) is not None
    progress = Progress()
    for event in ProgressFile(state.progress_file).new_events() if starting else []:
        progress.add(event)
    if as_json:
        held = {"state": "starting", "waiting_for": progress.waiting_for}
        print(json.dumps(held if starting else {"state": "stopped"}))
    elif progress.waiting_for:
        print(progress.waiting_for, file=sys.stderr)


def _headline(platform: PlatformRecord, body: dict[str, Any]) -> str:
    uptime_s = float(body.get("uptime_s") or 0.0)
    return f"weir at {platform.url}/v1, up {_duration(uptime_s)}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _table(deployments: tuple[Deployment, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    replicas = [replica for deployment in deployments for replica in deployment.replicas]
    roles = any(replica.role for replica in replicas)
    for heading in ("deployment", "replica", "state", *(("role",) if roles else ())):
        table.add_column(heading, no_wrap=True)
    tiers = any(replica.kv_memory_use is not None for replica in replicas)
    for heading in (
        "KV use",
        *(("memory", "disk") if tiers else ()),
        "running",
        "waiting",
        "tokens left",
        "MFU",
        "MBU",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for deployment in deployments:
        up = sum(replica.state == "RUNNING" for replica in deployment.replicas)
        count = f"{up} of {len(deployment.replicas)}"
        table.add_row(Text(deployment.name, "bold"), count, _colored(deployment.status))
        for replica in deployment.replicas:
            table.add_row("", *_cells(replica, roles, tiers))
    return table


def _cells(replica: Replica, roles: bool, tiers: bool) -> tuple[str | Text, ...]:
    def shown(value: float | None) -> str:
        return _NOTHING if value is None else str(value)

    def share(value: float | None) -> str:
        return _NOTHING if value is None else f"{value:.0%}"

    return (
        replica.replica_id or _NOTHING,
        _colored(replica.state),
        *((replica.role,) if roles else ()),
        share(replica.kv_use),
        *((share(replica.kv_memory_use), share(replica.kv_disk_use)) if tiers else ()),
        shown(replica.running),
        shown(replica.waiting),
        shown(replica.outstanding_tokens),
        share(replica.mfu),
        share(replica.mbu),
    )


def _colored(word: str) -> Text:
    return Text(word.lower(), style=_COLORS.get(word.upper(), "yellow"))
