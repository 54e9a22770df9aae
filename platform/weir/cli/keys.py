"""``weir keys``: the keys of the tenants in the database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir.cli.directory import (
    DatabaseOption,
    JsonOption,
    SetOption,
    actor,
    changes_of,
    every,
    moment,
    open_store,
    print_json,
    print_table,
    told,
)
from weir.cli.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from weir.tenancy.records import NewKey, StoredKey

keys_app = typer.Typer(
    help="API keys: list, create, rotate, revoke. In force within a second.",
    epilog="Example: [bold]weir keys create acme --name ci[/]",
    no_args_is_help=True,
)

_DAY_S = 86_400.0
KeyArgument = Annotated[str, typer.Argument(help="The key's id.", metavar="KEY")]


@keys_app.command("list", epilog="Example: [bold]weir keys list acme[/]")
def list_keys(
    tenant: Annotated[str | None, typer.Argument(help="Only this tenant's.")] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List keys, without their secrets. Those of the settings are not in the database."""
    with told():
        store = open_store(database)
        listed = list(every(lambda after: store.keys(tenant, after)))
    if as_json:
        print_json([_shown(each) for each in listed])
        return
    now_s = time.time()
    rows = [
        (
            each.key.id,
            each.key.tenant,
            each.key.name or "–",
            each.key.role.value,
            _condition(each, now_s),
            ", ".join(sorted(each.key.models | each.key.endpoints)) or "everything",
            moment(each.last_used_s),
        )
        for each in listed
    ]
    heads = ("KEY", "TENANT", "NAME", "ROLE", "STATE", "FOR", "LAST USED (UTC)")
    print_table(heads, rows, "There are no keys" + (f" of {tenant}." if tenant else "."))


@keys_app.command("create", epilog="Example: [bold]weir keys create acme --endpoint chat[/]")
def create_key(
    tenant: Annotated[str, typer.Argument(help="Whose key it will be.")],
    name: Annotated[str, typer.Option(help="What it is for, for people.")] = "",
    role: Annotated[
        str, typer.Option(help="admin, tenant-admin, tenant-user or read-only.")
    ] = "tenant-user",
    model: Annotated[list[str] | None, typer.Option(help="Only this model; repeatable.")] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="Only this one (chat, embeddings, ...); repeatable.")
    ] = None,
    expires_days: Annotated[
        float | None, typer.Option(min=0, help="It ends so many days from now.")
    ] = None,
    more: SetOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key, and show it: this once."""
    from weir.tenancy.fields import KeyFields, checked_fields

    given: dict[str, Any] = {
        "name": name,
        "role": role,
        "models": model or [],
        "endpoints": endpoint or [],
        "expires_s": None if expires_days is None else time.time() + expires_days * _DAY_S,
        **changes_of(more or []),
    }
    with told():
        fields = checked_fields(KeyFields, given)
        made = open_store(database).create_key(actor(), tenant, fields)
    _show_once(made, as_json)


@keys_app.command("rotate", epilog="Example: [bold]weir keys rotate 4fz0q2m8k1xa[/]")
def rotate_key(
    key: KeyArgument,
    overlap_hours: Annotated[
        float, typer.Option(min=0, help="So long the old key goes on working.")
    ] = 24.0,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key that may do the same, and let the old one expire."""
    with told():
        made = open_store(database).rotate_key(actor(), key, overlap_hours * 3600.0)
    _show_once(made, as_json)


@keys_app.command("revoke", epilog="Example: [bold]weir keys revoke 4fz0q2m8k1xa[/]")
def revoke_key(key: KeyArgument, database: DatabaseOption = None) -> None:
    """Refuse a key from now on, for good."""
    if key.startswith("weir_"):
        raise CommandError(
            "this is a whole key; its id is the part between the underscores", ExitCode.USAGE
        )
    with told():
        open_store(database).revoke_key(actor(), key)
    typer.echo(f"{key} is revoked")


def _show_once(made: NewKey, as_json: bool) -> None:
    if as_json:
        print_json({**_shown(made.stored), "key": made.secret})
        return
    typer.echo(made.secret)
    typer.echo("Keep it: it cannot be shown again.", err=True)


def _shown(stored: StoredKey) -> dict[str, Any]:
    from weir.tenancy.fields import fields_of_key

    key = stored.key
    return {
        "id": key.id,
        "tenant": key.tenant,
        **fields_of_key(key).model_dump(mode="json"),
        "created_s": key.created_s,
        "revoked_s": key.revoked_s,
        "last_used_s": stored.last_used_s,
        "replaces": stored.replaces,
        "version": stored.version,
    }


def _condition(stored: StoredKey, now_s: float) -> str:
    key = stored.key
    if key.revoked_s is not None:
        return "revoked"
    if not key.usable(now_s):
        return "expired"
    return "good" if key.expires_s is None else f"good until {moment(key.expires_s)}"
