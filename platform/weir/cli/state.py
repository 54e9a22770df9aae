"""The state folder: what one running platform and its command line tell each other.

=================  =================================================================
settings.yaml      effective settings of the last ``weir up``; key digests only
secrets.json       the demo tenant's key, the operator's, and the token between CLI and gateway
supervisor.json    which process was started: pid, create time, run id
platform.json      written by the supervisor once the platform answers
progress.jsonl     one line for each step of starting and stopping
logs/platform.log  the supervisor's output, and that of everything it starts
run                sockets and temporary files of everything that it starts; see weir.run_folder
=================  =================================================================

The folder is readable by its owner only.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from weir.cli.exits import CommandError, ExitCode


@dataclass(frozen=True, slots=True)
class Secrets:
    """``demo_key`` is the demo tenant's API key, ``admin_key`` the operator's of the admin API;
    ``internal_token`` opens ``/weir/status``."""

    demo_key: str
    internal_token: str
    admin_key: str


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process. ``run_id`` is in the environment of all that one ``weir up`` started; empty
    where it is not known."""

    pid: int
    create_time: float
    run_id: str


@dataclass(frozen=True, slots=True)
class PlatformRecord:
    """What the supervisor says of a platform that answers."""

    url: str
    models: tuple[str, ...]
    started_at: float
    seconds_to_ready: float
    parts: Mapping[str, ProcessRecord]
    """The processes that it cannot do without, by what they are."""


_SECRETS = tuple(field.name for field in fields(Secrets))


class State:
    """One state folder. Nothing is created before the first write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings_file = folder / "settings.yaml"
        self.secrets_file = folder / "secrets.json"
        self.supervisor_file = folder / "supervisor.json"
        self.platform_file = folder / "platform.json"
        self.progress_file = folder / "progress.jsonl"
        self.example_file = folder / "example.json"
        self.log_file = folder / "logs" / "platform.log"

    @classmethod
    def from_environment(cls) -> State:
        """``$WEIR_HOME``, else ``~/.weir``."""
        home = os.environ.get("WEIR_HOME")
        return cls(Path(home).expanduser().absolute() if home else Path.home() / ".weir")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one command starts or stops the platform at a time.

        Raises:
            CommandError: another command holds the lock.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise CommandError(
                    f"another weir command is starting or stopping the platform in {self.folder}",
                    ExitCode.CONFLICT,
                ) from None
            yield

    def secrets(self) -> Secrets:
        """The secrets, made on first use."""
        held = read_json(self.secrets_file)
        kept = {name: held[name] for name in _SECRETS if isinstance(held.get(name), str)}
        if len(kept) == len(_SECRETS):
            return Secrets(**kept)
        from weir.tenancy import new_key

        fresh = Secrets(new_key(), secrets.token_urlsafe(32), new_key())
        made = replace(fresh, **kept)
        write_private(self.secrets_file, json.dumps(asdict(made), indent=2) + "\n")
        return made

    def supervisor(self) -> ProcessRecord | None:
        """The last supervisor, whether or not it still runs; also one started without the CLI."""
        held = read_json(self.supervisor_file) or read_json(self.platform_file)
        try:
            return ProcessRecord(
                int(held["pid"]), float(held["create_time"]), str(held.get("run_id", ""))
            )
        except (KeyError, TypeError, ValueError):
            return None

    def platform(self) -> PlatformRecord | None:
        """What the supervisor published; None before the platform is ready."""
        held = read_json(self.platform_file)
        try:
            return PlatformRecord(
                url=str(held["url"]).rstrip("/"),
                models=tuple(str(name) for name in held["models"]),
                started_at=float(held.get("started_at") or 0.0),
                seconds_to_ready=float(held.get("seconds_to_ready") or 0.0),
                parts={
                    str(name): ProcessRecord(int(one["pid"]), float(one["create_time"]), "")
                    for name, one in (held.get("parts") or {}).items()
                },
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def last_log_lines(self, count: int) -> list[str]:
        """The end of the platform's log; empty if there is none."""
        try:
            with self.log_file.open("rb") as handle:
                handle.seek(0, os.SEEK_END)
                handle.seek(max(0, handle.tell() - 64 * 1024))
                tail = handle.read().decode("utf-8", "replace")
        except OSError:
            return []
        return tail.splitlines()[-count:]


def read_json(file: Path) -> dict[str, Any]:
    """The object in ``file``; empty if it is missing, half-written or no object."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_private(file: Path, text: str) -> None:
    """Replace ``file`` whole, readable by its owner only."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(text)
    fresh.replace(file)
