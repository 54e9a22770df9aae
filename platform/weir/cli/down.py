"""``weir down``: let streams in flight finish, then end exactly what ``weir up`` started."""

from __future__ import annotations

from rich.console import Console

from weir.cli import process
from weir.cli.exits import CommandError, ExitCode
from weir.cli.progress import ProgressFile, title
from weir.cli.state import State
from weir.run_folder import remove_run_folder
from weir.settings import SettingsError, load_settings
from weir.settings.tree import ServerSettings


def down(state: State, console: Console, now: bool) -> None:
    """Stop the platform. ``now``: do not wait for streams in flight.

    Raises:
        CommandError: nothing runs (NOT_RUNNING), or it had to be killed.
    """
    if not state.folder.is_dir():
        remove_run_folder(state.folder)
        raise CommandError("weir is not running", ExitCode.NOT_RUNNING)
    with state.locked():
        record = state.supervisor()
        running = process.find(record) is not None
        if record is None or (not running and not process.family(record)):
            remove_run_folder(state.folder)
            raise CommandError("weir is not running", ExitCode.NOT_RUNNING)
        if not running:
            console.print("The supervisor had died; stopping what it left behind.")
        shown = _Stopping(state, console, now)
        drain_s = 0.0 if now else _drain_timeout_s(state)
        with console.status(f"stopping; streams in flight have {drain_s:.0f} s to finish"):
            result = process.stop(state, record, drain_s, shown.update)
        remove_run_folder(state.folder)
    for leftover in result.leftovers:
        console.print(f"It had left {leftover} behind; stopped.", markup=False)
    if not result.graceful:
        raise CommandError(
            "weir did not stop in time and was killed", hint=f"log: {state.log_file}"
        )
    console.print(f"weir is down after {result.seconds:.1f} s.")


class _Stopping:
    """Says what the supervisor is doing; hurries it at once if asked to."""

    def __init__(self, state: State, console: Console, now: bool) -> None:
        self._file = ProgressFile(state.progress_file)
        self._file.new_events()
        self._console = console
        self._hurry = now

    def update(self, seconds: float) -> None:
        """Called several times a second while the supervisor stops."""
        for event in self._file.new_events():
            detail = event.error or event.detail or event.state
            self._console.print(f"{title(event.stage)}: {detail}", markup=False)
        if self._hurry and seconds > 0.5:
            self._hurry = False
            raise KeyboardInterrupt


def _drain_timeout_s(state: State) -> float:
    try:
        return load_settings("laptop", state.settings_file).server.drain_timeout_s
    except SettingsError:
        return ServerSettings().drain_timeout_s
