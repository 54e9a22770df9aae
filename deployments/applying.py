"""What a change of a running platform's settings may be, and what was in force before it."""

from __future__ import annotations

from pathlib import Path

from weir.errors import ConfigError
from weir.settings import Settings


class SettingsInForce:
    """Keeps the settings that took effect last. ``asked``: the file in which a change is asked for;
    ``folder``: of the platform's own, where the copies lie."""

    def __init__(self, asked: Path, folder: Path) -> None:
        self.file = folder / "settings-in-force.yaml"
        self._asked = asked
        self._wanted = folder / "settings-wanted.yaml"

    def copy(self) -> Path:
        """Of what is asked for now. To be made before anything changes: where the disk is full,
        this fails, and :meth:`begin` does not.

        Raises:
            OSError: it cannot be made.
        """
        _write_private(self._wanted, self._asked.read_bytes())
        return self._wanted

    def begin(self, copy: Path) -> None:
        """What was copied is in force."""
        copy.replace(self.file)

    def put_back(self) -> None:
        """Write what is in force into the file in which changes are asked for: whoever asked for
        one may have left, and the next one builds on that file.

        Raises:
            OSError: it cannot be written.
        """
        fresh = self._asked.with_suffix(".before")
        _write_private(fresh, self.file.read_bytes())
        fresh.replace(self._asked)


def _write_private(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(content)


def require_same_base(old: Settings, new: Settings) -> None:
    """What only a restart can change.

    Raises:
        ConfigError: a section that is fixed while the platform runs differs.
    """
    for section in ("redis", "ray", "database"):
        if getattr(old, section) != getattr(new, section):
            raise ConfigError(f"{section}: changes need a restart (weir down, weir up)")
    fixed = ("host", "port", "max_connections", "max_connections_per_source", "cors")
    for name in fixed:
        if getattr(old.server, name) != getattr(new.server, name):
            raise ConfigError(f"server.{name}: changes need a restart (weir down, weir up)")
    if old.files.url != new.files.url:
        raise ConfigError("files.url: changes need a restart (weir down, weir up)")
    for name in ("metrics", "admin"):
        listening = [getattr(each.server, name) for each in (old, new)]
        if len({(each.host, each.port) for each in listening}) > 1:
            raise ConfigError(
                f"server.{name}: host and port change only with a restart (weir down, weir up)"
            )
