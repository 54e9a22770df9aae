"""What the exit codes mean, and the error that carries one."""

from __future__ import annotations

from enum import IntEnum

from weir.errors import WeirError


class ExitCode(IntEnum):
    """Documented in docs/cli.md; scripts rely on them."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    """Wrong arguments, or settings that cannot be used."""
    NOT_RUNNING = 3
    """There is no platform, or it is not ready yet."""
    CONFLICT = 4
    """Something else is in the way: a platform with other settings, a taken port."""
    DEGRADED = 5
    """The platform answers, but a process that it cannot do without for long has died."""
    INTERRUPTED = 130


class CommandError(WeirError):
    """A command cannot do what it was asked. ``hint`` says what to do about it."""

    code = "command_failed"

    def __init__(
        self, message: str, exit_code: ExitCode = ExitCode.FAILURE, *, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.hint = hint
