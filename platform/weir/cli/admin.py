"""``weir admin``: the operator's key, and the admin API's description."""

from __future__ import annotations

import json
import sys

import typer

from weir.cli.exits import CommandError

admin_app = typer.Typer(
    help="The admin API: the operator's key, and its OpenAPI description.",
    epilog="Example: [bold]weir admin key[/]",
    no_args_is_help=True,
)


@admin_app.command(epilog='Example: [bold]curl -H "Authorization: Bearer $(weir admin key)" …[/]')
def key() -> None:
    """Print the operator's key that 'weir up' made. It opens everything of the admin API."""
    from weir.cli.effective import holds_operators_key
    from weir.cli.state import State
    from weir.settings import load_settings

    state = State.from_environment()
    file = state.settings_file
    admin_key = state.secrets().admin_key
    if file.is_file() and not holds_operators_key(load_settings("laptop", file), admin_key):
        raise CommandError(
            "the settings name keys of their own (server.admin)",
            hint="weir keeps their digests only; use one of those keys",
        )
    typer.echo(admin_key)


@admin_app.command(epilog="Example: [bold]weir admin openapi > weir-admin.json[/]")
def openapi() -> None:
    """Print the OpenAPI description of the admin and tenant API; no platform need run."""
    import subprocess

    # The application is none of the kernel's: it describes itself, in a process of its own.
    module = "deployments.control.describe_to_stdout"
    result = subprocess.run([sys.executable, "-P", "-m", module], capture_output=True, text=True)
    if result.returncode:
        raise CommandError("the description cannot be made", hint=result.stderr.strip()[-500:])
    typer.echo(json.dumps(json.loads(result.stdout), indent=2, ensure_ascii=False))
