"""``weir up``: settings, checks, start, wait, say how to use it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil
from rich.console import Console
from rich.markup import escape

from weir.cli import process
from weir.cli.effective import (
    SettingsFlags,
    effective_settings,
    to_yaml,
    with_demo_tenant,
    with_operators_key,
)
from weir.cli.exits import CommandError, ExitCode
from weir.cli.ports import require_free_ports
from weir.cli.progress import Progress, ProgressFile, display
from weir.cli.state import ProcessRecord, State, write_private
from weir.cli.summary import print_summary
from weir.run_folder import remove_run_folder
from weir.settings import Settings, SettingsError, load_settings

_POLL_S = 0.1
_LOG_LINES = 15


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The flags of ``weir up``."""

    settings: SettingsFlags
    timeout_s: float
    wait: bool
    as_json: bool


def up(options: UpOptions, state: State, console: Console) -> None:
    """Start the platform, or say that it runs. ``console`` shows progress; stdout gets the result.

    Raises:
        SettingsError: the settings cannot be used.
        CommandError: something is in the way, or the platform did not start.
    """
    asked = effective_settings(options.settings)
    with state.locked():
        secrets = state.secrets()
        settings = with_demo_tenant(asked, secrets.demo_key)
        settings = with_operators_key(settings, secrets.admin_key)
        record = state.supervisor()
        ours = process.find(record) is None
        if ours:
            _clear_leftovers(state, record, console)
            require_free_ports(settings)
            write_private(state.settings_file, to_yaml(settings))
            record = process.start(state, secrets.internal_token)
        else:
            _require_same(state, settings)
    if record is None:
        raise CommandError(f"{state.supervisor_file} vanished while starting")
    if not ours:
        doing = "running" if state.platform() else "starting"
        console.print(f"weir is already {doing} with these settings (pid {record.pid}).")
    if not options.wait:
        console.print(f"log: {state.log_file}", markup=False, soft_wrap=True)
        return
    if ours or state.platform() is None:
        _wait_until_ready(state, record, options.timeout_s, console, ours)
    print_summary(state, settings, options.as_json)


def _require_same(state: State, settings: Settings) -> None:
    try:
        running: Settings | None = load_settings("laptop", state.settings_file)
    except SettingsError:
        running = None
    if running == settings:
        return
    at = f" at {running.server.host}:{running.server.port}" if running else ""
    raise CommandError(
        f"weir is already running{at} with other settings",
        ExitCode.CONFLICT,
        hint="'weir config show --running' shows them; 'weir down' stops it",
    )


def _clear_leftovers(state: State, record: ProcessRecord | None, console: Console) -> None:
    """What an earlier platform left behind when its supervisor was killed."""
    if record is None:
        remove_run_folder(state.folder)
        return
    if process.family(record):
        console.print("An earlier platform did not end cleanly; stopping what it left behind.")
    process.stop(state, record, drain_timeout_s=0.0)
    remove_run_folder(state.folder)


def _wait_until_ready(
    state: State,
    record: ProcessRecord,
    timeout_s: float,
    console: Console,
    ours: bool,
) -> None:
    """Show progress until the platform answers. If it does not, and it is ours, stop it whole."""
    try:
        progress, reason = _follow(state, record, timeout_s, console)
    except KeyboardInterrupt:
        if ours:
            console.print("Interrupted: stopping what was started.")
            process.stop(state, record, drain_timeout_s=0.0)
        raise
    if reason is None:
        return
    if ours:
        process.stop(state, record, drain_timeout_s=0.0)
    _print_log_end(state, console)
    failed = progress.failure
    detail = f": {failed.error or failed.detail or failed.stage}" if failed else ""
    raise CommandError(
        f"{reason}{detail}", hint=f"the whole log: {state.log_file}" if ours else None
    )


def _follow(
    state: State, record: ProcessRecord, timeout_s: float, console: Console
) -> tuple[Progress, str | None]:
    """The progress made, and why the platform is not ready (None if it is)."""
    progress, file = Progress(), ProgressFile(state.progress_file)
    supervisor = process.find(record)
    began_s = time.time() - record.create_time
    started = time.monotonic()
    with display(console) as shown:
        while True:
            gone = supervisor is None or not process.alive(supervisor)
            events = file.new_events()
            for event in events:
                progress.add(event)
            waited_s = time.monotonic() - started
            shown.update(progress, events, waited_s + max(began_s, 0.0))
            if not gone and progress.ready and state.platform() is not None:
                return progress, None
            if gone:
                return progress, "weir did not start"
            if waited_s > timeout_s:
                waiting = f" (waiting for {progress.waiting_for})" if progress.waiting_for else ""
                return progress, f"weir was not ready after {timeout_s:.0f} s{waiting}"
            _pause(supervisor)


def _pause(supervisor: psutil.Process | None) -> None:
    """A moment, or less if the supervisor ends; reaps it where it is this process's child."""
    if supervisor is None:
        return
    try:
        supervisor.wait(timeout=_POLL_S)
    except psutil.TimeoutExpired:
        return


def _print_log_end(state: State, console: Console) -> None:
    lines = state.last_log_lines(_LOG_LINES)
    if lines:
        console.print(f"\nThe last lines of {escape(str(state.log_file))}:", soft_wrap=True)
    for line in lines:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
