"""What ``weir tenants`` and ``weir keys`` have in common: the database, values, tables."""

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from weir.cli.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from weir.tenancy.database import TenantStore
    from weir.tenancy.records import Page

DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", help="Its URL; left out: the database of the platform here."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="A field, with dots; its value in YAML. Repeatable."
    ),
]
_T = TypeVar("_T")


def open_store(url: str | None) -> TenantStore:
    """The directory in the database at ``url``, or in that of this state folder's platform; its
    schema is brought up to date.

    Raises:
        ConfigError, DatabaseAwayError: it cannot be used, or does not answer.
    """
    from weir.cli.state import State
    from weir.database import database_url, migrate, open_database
    from weir.settings import load_settings
    from weir.settings.database import DatabaseSettings
    from weir.tenancy.database import TenantStore

    if url is None:
        state = State.from_environment()
        file = state.settings_file
        settings = load_settings("laptop", file).database if file.exists() else DatabaseSettings()
        state.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        url = database_url(settings, os.environ, state.folder)
    engine = open_database(url)
    migrate(engine)
    return TenantStore(engine)


def actor() -> str:
    """Who uses the command line, for the audit log."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:{os.getuid()}"


@contextmanager
def told() -> Iterator[None]:
    """What the directory refuses is the command's own error.

    Raises:
        CommandError: what was refused, with the exit code that fits.
    """
    from weir.errors import (
        BadRequestError,
        ConflictError,
        DatabaseAwayError,
        NotFoundError,
        VersionMismatchError,
    )

    try:
        yield
    except BadRequestError as error:
        raise CommandError(error.message, ExitCode.USAGE) from None
    except (ConflictError, VersionMismatchError) as error:
        raise CommandError(error.message, ExitCode.CONFLICT) from None
    except (NotFoundError, DatabaseAwayError) as error:
        raise CommandError(error.message) from None


def changes_of(pairs: Iterable[str]) -> dict[str, Any]:
    """``quotas.requests_per_minute=60`` and the like, as one tree.

    Raises:
        CommandError: one of them is not of that form.
    """
    import yaml

    tree: dict[str, Any] = {}
    for pair in pairs:
        path, equals, value = pair.partition("=")
        try:
            read = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals or not all(path.split(".")):
            raise CommandError(f"--set: {pair!r} is not FIELD=VALUE", ExitCode.USAGE)
        below = tree
        *above, last = path.split(".")
        for name in above:
            held = below.setdefault(name, {})
            if not isinstance(held, dict):
                raise CommandError(f"--set: {name} is given twice", ExitCode.USAGE)
            below = held
        below[last] = read
    return tree


def every(page: Callable[[str | None], Page[_T]]) -> Iterator[_T]:
    """All parts of a list, one after the other."""
    after: str | None = None
    while True:
        part = page(after)
        yield from part.items
        if part.next is None:
            return
        after = part.next


def print_json(value: Any) -> None:
    """One value, indented where people read it."""
    typer.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
    """Columns as wide as what is in them; ``nothing``: what is said where there is no row."""
    if not rows:
        typer.echo(nothing)
        return
    widths = [max(len(line[place]) for line in (heads, *rows)) for place in range(len(heads))]
    for line in (heads, *rows):
        padded = (part.ljust(width) for part, width in zip(line, widths, strict=True))
        typer.echo("  ".join(padded).rstrip())


def moment(at_s: float | None) -> str:
    """A time for people, in UTC."""
    if at_s is None:
        return "–"
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at_s))


def set_quotas(quotas: Mapping[str, Any]) -> str:
    """The bounds that there are."""
    return ", ".join(f"{name}={value}" for name, value in quotas.items() if value is not None)
