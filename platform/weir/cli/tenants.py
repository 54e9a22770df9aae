"""``weir tenants``: who may use the platform, in its database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir.cli.directory import (
    DatabaseOption,
    JsonOption,
    SetOption,
    actor,
    changes_of,
    every,
    open_store,
    print_json,
    print_table,
    set_quotas,
    told,
)

if TYPE_CHECKING:
    from weir.settings import TenantSettings
    from weir.tenancy.records import StoredTenant

tenants_app = typer.Typer(
    help="Tenants: list, show, create, update, delete. In force within a second.",
    epilog="Example: [bold]weir tenants create acme --set weight=2[/]",
    no_args_is_help=True,
)

TenantArgument = Annotated[str, typer.Argument(help="The tenant's id.", metavar="TENANT")]
IfVersionOption = Annotated[
    int | None, typer.Option("--if-version", help="Only where it has this version.")
]


@tenants_app.command("list", epilog="Example: [bold]weir tenants list --json[/]")
def list_tenants(database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List the tenants of the settings and of the database."""
    with told():
        store = open_store(database)
        listed = [_of_settings(each) for each in store.settings_tenants()]
        listed += [_of_database(each) for each in every(store.tenants)]
    if as_json:
        print_json(listed)
        return
    rows = [
        (
            each["id"],
            each["from"],
            "yes" if each["enabled"] else "no",
            ", ".join(each["models"]) or "all",
            _budget(each),
            set_quotas(each["quotas"]) or "–",
        )
        for each in listed
    ]
    heads = ("TENANT", "FROM", "ENABLED", "MODELS", "BUDGET", "QUOTAS")
    print_table(heads, rows, "There are no tenants.")


@tenants_app.command("show", epilog="Example: [bold]weir tenants show acme[/]")
def show_tenant(tenant: TenantArgument, database: DatabaseOption = None) -> None:
    """Print everything about a tenant, as JSON."""
    with told():
        store = open_store(database)
        own = [each for each in store.settings_tenants() if each.id == tenant]
        shown = _of_settings(own[0]) if own else _of_database(store.tenant(tenant))
    print_json(shown)


@tenants_app.command("create", epilog="Example: [bold]weir tenants create acme --set weight=2[/]")
def create_tenant(
    tenant: TenantArgument,
    fields: SetOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a tenant. It has no key yet: 'weir keys create' makes one."""
    from weir.settings import TenantFields
    from weir.tenancy.fields import checked_fields

    with told():
        made = open_store(database).create_tenant(
            actor(), tenant, checked_fields(TenantFields, changes_of(fields or []))
        )
    _tell(made, "created", as_json)


@tenants_app.command(
    "update",
    epilog="Example: [bold]weir tenants update acme --set quotas.requests_per_minute=60[/]",
)
def update_tenant(
    tenant: TenantArgument,
    fields: SetOption = None,
    if_version: IfVersionOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change fields of a tenant; null takes a field's default."""
    with told():
        changed = open_store(database).update_tenant(
            actor(), tenant, changes_of(fields or []), if_version
        )
    _tell(changed, "updated", as_json)


@tenants_app.command("delete", epilog="Example: [bold]weir tenants delete acme[/]")
def delete_tenant(
    tenant: TenantArgument, if_version: IfVersionOption = None, database: DatabaseOption = None
) -> None:
    """Delete a tenant: its keys are revoked, its id is not used again."""
    with told():
        open_store(database).delete_tenant(actor(), tenant, if_version)
    typer.echo(f"{tenant} is deleted; its keys are revoked")


def _tell(stored: StoredTenant, done: str, as_json: bool) -> None:
    if as_json:
        print_json(_of_database(stored))
    else:
        typer.echo(f"{stored.tenant.id} is {done} (version {stored.version})")


def _of_settings(settings: TenantSettings) -> dict[str, Any]:
    fields = settings.model_dump(mode="json", exclude={"key_sha256", "id"})
    return {"id": settings.id, "from": "settings", "version": None, **fields}


def _of_database(stored: StoredTenant) -> dict[str, Any]:
    from weir.tenancy.fields import fields_of_tenant

    fields = fields_of_tenant(stored.tenant).model_dump(mode="json")
    return {"id": stored.tenant.id, "from": "database", "version": stored.version, **fields}


def _budget(each: dict[str, Any]) -> str:
    budget = each["budget"]
    return "–" if budget is None else f"{budget['usd_per_month']} USD a month"
