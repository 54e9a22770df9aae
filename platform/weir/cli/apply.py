"""``weir apply``: change a running platform's settings without losing a request."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from weir.cli import process
from weir.cli.effective import to_yaml
from weir.cli.exits import CommandError, ExitCode
from weir.cli.progress import ProgressFile, title
from weir.cli.state import State, write_private
from weir.settings import ModelSettings, Settings, load_settings, parse_settings, read_tree

_POLL_S = 0.2


class NotAppliedError(CommandError):
    """The platform says that all is as it was."""


def apply(
    state: State,
    config: Path | None,
    scale: Mapping[str, int],
    timeout_s: float,
    console: Console,
) -> None:
    """Overlay the running settings with ``config`` and ``scale`` (model, or model and pool, to
    replicas).

    Raises:
        SettingsError: the new settings cannot be used; nothing was changed.
        CommandError: nothing runs, or the platform refused or did not get there in time.
    """
    record = state.supervisor()
    supervisor = process.find(record)
    if supervisor is None or state.platform() is None:
        raise CommandError("weir is not running", ExitCode.NOT_RUNNING)
    with state.locked():
        before = state.settings_file.read_text("utf-8")
        settings = _scaled(load_settings("laptop", state.settings_file, _overlay(config)), scale)
        events = ProgressFile(state.progress_file)
        events.new_events()
        write_private(state.settings_file, to_yaml(settings))
        os.kill(supervisor.pid, signal.SIGHUP)
        try:
            _wait(events, timeout_s, console)
        except NotAppliedError:
            write_private(state.settings_file, before)
            raise
    console.print("applied.")


def parse_scale(pairs: Iterable[str]) -> dict[str, int]:
    """``MODEL=REPLICAS`` pairs, and ``MODEL:POOL=REPLICAS`` for a model with pools.

    Raises:
        CommandError: one of them is not of that form.
    """
    scale = {}
    for pair in pairs:
        name, _, count = pair.rpartition("=")
        if not name or not count.isdigit():
            raise CommandError(
                f"--scale: {pair!r} is not MODEL=REPLICAS or MODEL:POOL=REPLICAS", ExitCode.USAGE
            )
        scale[name] = int(count)
    return scale


def _overlay(config: Path | None) -> dict[str, Any]:
    return read_tree(config) if config else {}


def _scaled(settings: Settings, scale: Mapping[str, int]) -> Settings:
    known = [name for model in settings.models for name in _scalable(model)]
    for name in scale:
        if name not in known:
            told = ", ".join(known)
            raise CommandError(f"--scale: no model {name!r}; known: {told}", ExitCode.USAGE)
    models = tuple(_scaled_model(model, scale) for model in settings.models)
    tree = settings.model_copy(update={"models": models}).model_dump(mode="json")
    return parse_settings(tree, "weir apply")


def _scalable(model: ModelSettings) -> list[str]:
    return [f"{model.name}:{pool.name}" for pool in model.pools] or [model.name]


def _scaled_model(model: ModelSettings, scale: Mapping[str, int]) -> ModelSettings:
    if not model.pools:
        return model.model_copy(update={"replicas": scale.get(model.name, model.replicas)})
    pools = tuple(
        pool.model_copy(update={"replicas": scale.get(f"{model.name}:{pool.name}", pool.replicas)})
        for pool in model.pools
    )
    return model.model_copy(update={"pools": pools})


def _wait(events: ProgressFile, timeout_s: float, console: Console) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for event in events.new_events():
            detail = event.error or event.detail or event.state
            console.print(f"{title(event.stage)}: {detail}", markup=False)
            if event.stage == "apply" and event.state == "done":
                return
            if event.stage == "apply" and event.state == "fail":
                raise NotAppliedError(f"not applied: {event.error}")
        time.sleep(_POLL_S)
    raise CommandError(
        f"not applied within {timeout_s:.0f} s; the platform goes on with it, and goes back to "
        "what was there before if it fails: 'weir status' shows where it is"
    )
