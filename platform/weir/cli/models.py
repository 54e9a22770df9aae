"""``weir models``: what the model registry holds, and which version is live."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from weir.registry import Registry, Version

models_app = typer.Typer(
    help="Versions of models: list, show, add, promote, roll back; and what one needs.",
    epilog="Example: [bold]weir models promote weir-student 2[/]",
    no_args_is_help=True,
)

RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry", help="Directory or URL (s3://...); left out: 'registry' in the state folder."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NameArgument = Annotated[str, typer.Argument(help="The model's name in the registry.")]


@models_app.command("list", epilog="Example: [bold]weir models list --json[/]")
def list_models(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List versions, oldest first, with their stage."""
    versions = _open(registry).list(name)
    if as_json:
        typer.echo(json.dumps([asdict(version) for version in versions]))
        return
    if not versions:
        typer.echo("The registry holds no model" + (f" named {name}." if name else "."))
    for version in versions:
        added = datetime.fromtimestamp(version.added_at, UTC).strftime("%Y-%m-%d %H:%M")
        row = f"{version.reference:<32} {version.stage.value:<10} {added}  {version.label:<10}"
        typer.echo(f"{row} {version.digest[:12]}")


@models_app.command("show", epilog="Example: [bold]weir models show weir-student@live[/]")
def show_model(
    reference: Annotated[str, typer.Argument(help="NAME, NAME@STAGE or NAME@NUMBER.")],
    registry: RegistryOption = None,
) -> None:
    """Print a version with its lineage, metrics and manifest, as JSON; its files are checked."""
    from weir.registry import parse_reference

    held = _open(registry)
    name, which = parse_reference(reference)
    version = held.show(name, which)
    folder = held.open(name, version.number)
    manifest = dict(held.manifest(version).raw)
    typer.echo(
        json.dumps({**asdict(version), "folder": str(folder), "manifest": manifest}, indent=2)
    )


@models_app.command(
    "add", epilog="Example: [bold]weir models add ./out/student --report ./out/report.json[/]"
)
def add_model(
    folder: Annotated[Path, typer.Argument(help="A Hugging Face folder with a manifest.json.")],
    report: Annotated[
        Path, typer.Option("--report", help="The evaluation's report; a failed gate is refused.")
    ],
    name: Annotated[str | None, typer.Option(help="Name; left out: the manifest's.")] = None,
    registry: RegistryOption = None,
) -> None:
    """Add a model as a candidate."""
    from weir.registry.gate import read_gate_report

    version = _open(registry).add(folder, read_gate_report(report), name)
    _tell(version)


@models_app.command("promote", epilog="Example: [bold]weir models promote weir-student 2[/]")
def promote_model(
    name: NameArgument,
    number: Annotated[int, typer.Argument(min=1, help="The version's number.")],
    to: Annotated[
        str | None,
        typer.Option(help="candidate, canary, live or retired; left out: the next stage."),
    ] = None,
    registry: RegistryOption = None,
) -> None:
    """Move a version one stage on; the one that was live is retired."""
    from weir.errors import ConfigError
    from weir.registry import Stage

    try:
        stage = Stage(to) if to is not None else None
    except ValueError:
        raise ConfigError(f"--to: {to!r} is not one of {', '.join(Stage)}") from None
    _tell(_open(registry).promote(name, number, stage))


@models_app.command("rollback", epilog="Example: [bold]weir models rollback weir-student[/]")
def rollback_model(name: NameArgument, registry: RegistryOption = None) -> None:
    """Make the version live again that was live before."""
    _tell(_open(registry).rollback(name))


@models_app.command("card", epilog="Example: [bold]weir models card weir-teacher --memory 4[/]")
def card_of_model(
    model: Annotated[
        str, typer.Argument(help="A folder, a model of the settings, or one of the registry.")
    ],
    memory: Annotated[
        float | None, typer.Option(min=0, help="GiB for weights and KV cache together.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Data type of the weights.")] = None,
    kv_dtype: Annotated[str | None, typer.Option(help="Data type of the KV cache.")] = None,
    block_size: Annotated[int | None, typer.Option(min=1, help="Tokens in a KV block.")] = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a replica needs and can do: weights, KV cache, room, work. Nothing is started."""
    from weir.cli.card import CardOptions, show_card
    from weir.cli.state import State

    options = CardOptions(model, memory, dtype, kv_dtype, block_size, registry)
    show_card(options, State.from_environment(), as_json)


def _open(url: str | None) -> Registry:
    from weir.cli.state import State
    from weir.registry import Registry

    folder = State.from_environment().folder
    return Registry(url or str(folder / "registry"), cache=folder / "models")


def _tell(version: Version) -> None:
    typer.echo(f"{version.reference} is {version.stage.value}")
